//! What the demonstration says.

use std::path::Path;

use super::folder::{KeyPair, Run};

/// The file that a shell sources.
pub(super) fn environment(user: &KeyPair, run: &Run) -> String {
    format!(
        "export AWS_ACCESS_KEY_ID={}\nexport AWS_SECRET_ACCESS_KEY={}\nexport AWS_ENDPOINT_URL={}\nexport \
         AWS_REGION={region}\nexport AWS_DEFAULT_REGION={region}\n",
        user.access_key_id,
        user.secret_access_key,
        run.endpoint,
        region = run.region,
    )
}

/// The screen once everything is ready.
pub(super) fn welcome(dir: &Path, run: &Run) -> String {
    let dir = shell_word(&dir.display().to_string());
    let default = dir == super::DIR_DEFAULT;
    let peek_dir = if default { String::new() } else { format!(" --dir {dir}") };
    let provider = if run.embedded {
        format!("{dir}/provider          plain files: all that the provider ever gets")
    } else {
        format!("{}   the store behind the gateway", run.upstream)
    };
    format!(
        "
Claviger is running: an S3 endpoint that seals everything before the store gets it.

  endpoint   {endpoint}   region {region}

In another terminal, with aws-cli (2.13 or newer):

  . {dir}/credentials.env
  aws s3 mb s3://demo
  echo 'for my eyes only' > note.txt
  aws s3 cp note.txt s3://demo/note.txt
  aws s3 cp s3://demo/note.txt -

Or with Python (. {dir}/credentials.env first):

  import boto3
  s3 = boto3.client(\"s3\")
  s3.create_bucket(Bucket=\"demo\")
  s3.put_object(Bucket=\"demo\", Key=\"note.txt\", Body=b\"for my eyes only\")
  print(s3.get_object(Bucket=\"demo\", Key=\"note.txt\")[\"Body\"].read())

Then see both sides of it:

  claviger peek s3://demo/note.txt{peek_dir}

Where things lie:

  {provider}
  {dir}/recovery          shares of the root key; in real use on paper, in different safes
  {dir}/keyservice        the key service: root key (wrapped), registry, audit log

Ctrl-C ends it; the next start goes on with the same state.
",
        endpoint = run.endpoint,
        region = run.region,
    )
}

/// Quoted for a POSIX shell where that is needed.
fn shell_word(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    if !text.is_empty() && text.chars().all(harmless) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let upstream_key = KeyPair {
            access_key_id: "P".to_owned(),
            secret_access_key: "provider-secret".to_owned(),
            session_token: None,
        };
        Run {
            endpoint: "http://127.0.0.1:9000".to_owned(),
            upstream: "http://127.0.0.1:4".to_owned(),
            region: "us-east-1".to_owned(),
            upstream_region: "us-east-1".to_owned(),
            upstream_key,
            embedded: true,
        }
    }

    #[test]
    fn the_environment_file_is_what_a_shell_takes() {
        let user = KeyPair {
            access_key_id: "AK".to_owned(),
            secret_access_key: "SK".to_owned(),
            session_token: None,
        };
        let text = environment(&user, &run());
        assert!(text.lines().all(|line| line.starts_with("export AWS_")), "{text}");
        assert!(text.contains("export AWS_REGION=us-east-1\n"), "{text}");
        assert!(text.contains("export AWS_ENDPOINT_URL=http://127.0.0.1:9000\n"), "{text}");
    }

    #[test]
    fn the_screen_shows_no_secret_and_names_the_folder_where_it_matters() {
        let text = welcome(Path::new("my dir"), &run());
        assert!(!text.contains("provider-secret"));
        assert!(text.contains("claviger peek s3://demo/note.txt --dir 'my dir'"), "{text}");
        assert!(!welcome(Path::new(super::super::DIR_DEFAULT), &run()).contains("--dir"));
    }
}
