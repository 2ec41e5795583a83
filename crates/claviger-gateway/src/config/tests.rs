use super::*;

const EXAMPLE: &str = include_str!("../../../../deploy/gateway.toml");

const LEAST: &str = r#"
listen = "127.0.0.1:9000"
credentials_file = "credentials.toml"

[upstream]
endpoint = "https://s3.example.com"
credentials_file = "/etc/claviger/upstream.toml"

[key_service]
endpoint = "https://keys.example.org:7443"
state_dir = "state"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/claviger/gateway.toml"))
}

fn problem_of(text: &str) -> Problem {
    parse(text).unwrap_err().problems.remove(0)
}

#[test]
fn the_example_in_deploy_loads_and_its_commented_defaults_are_the_defaults() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.system_area.bucket, SystemAreaConfig::default().bucket);
    // With every commented setting put in force the file still loads, so none of the names in it is misspelt.
    let all: String = EXAMPLE
        .lines()
        .map(|line| if is_commented_setting(line) { line.trim_start_matches("#") } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    let full = parse(&all).unwrap();
    assert_eq!(format!("{:?}", full.limits), format!("{:?}", LimitsConfig::default()));
    assert_eq!(full.upstream.response_timeout_s, default_response_timeout_s());
    assert_eq!(full.upstream.pool_idle_max, default_pool_idle_max());
    assert!(full.tls.is_some() && full.admin.is_some());
}

/// Settings are commented as `#name = value` or `#[section]`, prose as `# text`.
fn is_commented_setting(line: &str) -> bool {
    line.strip_prefix('#')
        .is_some_and(|rest| rest.starts_with('[') || rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

#[test]
fn tags_are_refused_unless_an_entry_names_the_bucket() {
    assert_eq!(parse(LEAST).unwrap().tag_mode("any"), TagMode::Refused);
    let some = "[[tags]]\nbuckets = [\"plain-secret\"]\nmode = \"refused\"\n\
                [[tags]]\nbuckets = [\"plain-*\", \"other\"]\nmode = \"plain\"\n";
    let config = parse(&format!("{LEAST}\n{some}")).unwrap();
    for (bucket, mode) in [
        ("plain-a", TagMode::Plain),
        ("other", TagMode::Plain),
        ("plain-secret", TagMode::Refused),
        ("another", TagMode::Refused),
    ] {
        assert_eq!(config.tag_mode(bucket), mode, "{bucket}");
    }
}

#[test]
fn a_tags_entry_without_a_bucket_or_with_an_unknown_mode_is_refused() {
    let problem = problem_of(&format!("{LEAST}\n[[tags]]\nbuckets = []\nmode = \"plain\"\n"));
    assert!(problem.what.contains("names no bucket") && problem.line.is_some(), "{problem:?}");
    assert!(parse(&format!("{LEAST}\n[[tags]]\nbuckets = [\"a\"]\nmode = \"sealed\"\n")).is_err());
}

#[test]
fn the_least_configuration_gets_the_documented_defaults() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.region(), "us-east-1");
    assert_eq!(config.upstream.addressing, Addressing::Path);
    assert_eq!(config.upstream.profile, UpstreamProfile::Generic);
    assert_eq!(config.limits.concurrent_requests_max, 512);
    assert_eq!(config.system_area.bucket, "claviger-system");
    assert!(config.tls.is_none() && config.admin.is_none() && config.virtual_hosts.is_empty());
}

#[test]
fn relative_paths_count_from_the_folder_of_the_file() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.credentials_file, Path::new("/etc/claviger/credentials.toml"));
    assert_eq!(config.upstream.credentials_file, Path::new("/etc/claviger/upstream.toml"));
    assert_eq!(config.key_service.state_dir, Path::new("/etc/claviger/state"));
}

#[test]
fn an_unknown_setting_is_refused_with_its_line_and_the_names_that_exist() {
    let problem = problem_of(&LEAST.replace("[key_service]", "colour = 1\n[key_service]"));
    assert_eq!(problem.line, Some(9));
    assert!(problem.what.contains("colour") && problem.what.contains("endpoint"), "{problem}");
    assert!(problem.to_string().starts_with("/etc/claviger/gateway.toml:9: error: "), "{problem}");
    assert!(problem.remedy.contains("spelling"));
}

#[test]
fn a_missing_setting_and_a_wrong_type_name_their_place() {
    let missing = problem_of(&LEAST.replace("credentials_file = \"credentials.toml\"\n", ""));
    assert!(missing.what.contains("credentials_file"), "{missing}");
    let wrong = problem_of(&format!("{LEAST}\n[limits]\nconcurrent_requests_max = \"many\"\n"));
    assert_eq!(wrong.line, Some(14), "{wrong}");
    let broken = problem_of("listen = ");
    assert_eq!(broken.line, Some(1), "{broken}");
}

#[test]
fn values_that_make_no_sense_are_refused_with_line_and_remedy() {
    let cases = [
        (
            "endpoint = \"https://s3.example.com\"",
            "endpoint = \"https://s3.example.com/path\"",
            "without a path",
        ),
        ("endpoint = \"https://s3.example.com\"", "endpoint = \"ftp://s3.example.com\"", "https://"),
        ("endpoint = \"https://s3.example.com\"", "endpoint = \"s3.example.com\"", "https://host"),
        (
            "endpoint = \"https://s3.example.com\"",
            "endpoint = \"https://me:pw@s3.example.com\"",
            "https://host",
        ),
        (
            "endpoint = \"https://keys.example.org:7443\"",
            "endpoint = \"http://keys.example.org:7443\"",
            "https://",
        ),
        ("listen", "host_aliases = [\"S3.example.org\"]\nlisten", "as clients write them"),
        ("listen", "host_aliases = [\"s3.example.org:\"]\nlisten", "as clients write them"),
        ("listen", "host_aliases = [\"https://s3.example.org\"]\nlisten", "as clients write them"),
        ("[key_service]", "region = \"not a region\"\n[key_service]", "region name"),
        ("[key_service]", "[limits]\nheader_bytes_max = 1\n[key_service]", "8192"),
        ("[key_service]", "[limits]\nbody_idle_timeout_s = 0\n[key_service]", "at least 1"),
        ("[key_service]", "[system_area]\nbucket = \"No\"\n[key_service]", "3 to 63"),
        ("[key_service]", "[admin]\nlisten = \"127.0.0.1:9000\"\n[key_service]", "port of its own"),
    ];
    for (from, to, remedy) in cases {
        assert!(LEAST.contains(from));
        let problem = problem_of(&LEAST.replace(from, to));
        assert!(problem.line.is_some(), "{problem}");
        assert!(problem.remedy.contains(remedy), "{problem}");
    }
}

#[test]
fn clear_text_on_the_network_is_a_warning_and_on_loopback_none() {
    let open = parse(&LEAST.replace("127.0.0.1:9000", "0.0.0.0:9000")).unwrap();
    let warnings: Vec<_> = open.check().into_iter().filter(|p| p.severity == Severity::Warning).collect();
    assert!(warnings.iter().any(|p| p.what.contains("in the clear")), "{warnings:?}");
    assert!(!parse(LEAST).unwrap().check().iter().any(|p| p.what.contains("in the clear")));
}

#[test]
fn check_opens_every_file_that_the_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, LEAST.replace("/etc/claviger/upstream.toml", "upstream.toml")).unwrap();
    let config = Config::load(&path).unwrap();
    let problems = config.check();
    for name in ["credentials.toml", "upstream.toml", "state"] {
        let about: Vec<_> = problems.iter().filter(|p| p.what.contains(name)).collect();
        assert_eq!(about.len(), 1, "{name} in {problems:?}");
        assert!(about[0].line.is_some());
    }
}

#[test]
fn check_names_an_access_key_whose_account_does_not_exist() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let pair = "access_key_id = \"AAA\"\nsecret_access_key = \"0123456789abcdef\"\n";
    write("gateway.toml", &LEAST.replace("/etc/claviger/upstream.toml", "upstream.toml"));
    write("upstream.toml", &format!("{pair}[[account]]\nname = \"alice\"\n{pair}"));
    let config = Config::load(&folder.path().join("gateway.toml")).unwrap();
    let about_accounts = || {
        let problems = config.check().into_iter().map(|problem| problem.to_string());
        problems.filter(|problem| problem.contains("account")).collect::<Vec<_>>()
    };
    write("credentials.toml", &format!("[[key]]\n{pair}upstream_account = \"alice\"\n"));
    assert!(about_accounts().is_empty(), "{:?}", about_accounts());
    write("credentials.toml", &format!("[[key]]\n{pair}upstream_account = \"bob\"\n"));
    let problems = about_accounts();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("credentials.toml:4: there is no upstream account \"bob\""), "{problems:?}");
}

#[test]
fn a_missing_file_says_where_an_example_is() {
    let error = Config::load(Path::new("/nonexistent/gateway.toml")).unwrap_err();
    assert!(error.to_string().contains("deploy/gateway.toml"), "{error}");
}

#[test]
fn the_key_service_is_reached_at_its_port_or_443() {
    let address = |endpoint: &str| {
        let endpoint = Endpoints::One(endpoint.to_owned());
        KeyServiceConfig { endpoint, state_dir: PathBuf::new() }.address()
    };
    assert_eq!(address("https://keys.example.org:7443"), "keys.example.org:7443");
    assert_eq!(address("https://keys.example.org/"), "keys.example.org:443");
    assert_eq!(address("https://[::1]:7443"), "[::1]:7443");
    assert_eq!(address("https://[::1]"), "[::1]:443");
}

#[test]
fn replicas_of_the_key_service_are_a_list_and_each_is_judged() {
    let one = "endpoint = \"https://keys.example.org:7443\"";
    let with = |list: &str| LEAST.replace(one, &format!("endpoint = {list}"));
    let good = parse(&with("[\"https://a.example.org:7443\", \"https://b.example.org\"]")).unwrap();
    assert_eq!(good.key_service.address(), "a.example.org:7443,b.example.org:443");
    let problem = problem_of(&with("[\"https://a.example.org\", \"http://b.example.org\"]"));
    assert!(problem.what.contains("http://b.example.org"), "{problem}");
    assert!(problem_of(&with("[]")).what.contains("lists 0"));
    let many = ["\"https://a.example.org\""; 9].join(", ");
    assert!(problem_of(&with(&format!("[{many}]"))).what.contains("lists 9"));
}

#[test]
fn settings_are_judged_against_the_kind_of_store() {
    let with = |setting: &str| LEAST.replace("[key_service]", &format!("{setting}\n[key_service]"));
    let problem = problem_of(&with("profile = \"aws\"\nmetadata_bytes_max = 4096"));
    assert!(problem.what.contains("Amazon S3 takes 2048"), "{problem}");
    assert_eq!(problem.line, Some(10));
    assert!(parse(&with("profile = \"gcs\"\nmetadata_bytes_max = 8192")).is_ok());
    let problem = problem_of(&with("profile = \"r2\"\nregion = \"eu-central-1\""));
    assert!(problem.what.contains("Cloudflare R2") && problem.remedy.contains("auto"), "{problem}");
    assert!(parse(&with("profile = \"r2\"\nregion = \"auto\"")).is_ok());
    assert_eq!(parse(&with("profile = \"ceph\"")).unwrap().upstream.profile, UpstreamProfile::CephRgw);
}
