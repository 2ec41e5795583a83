//! How cost grows: with the size of objects, the number of connections, of names in a bucket, and of epochs.
//!
//! Each file here measures one of them; `curve` keeps what came out, `fit` lays a line through it, `table` and `plot` show it.

mod connections;
mod curve;
mod epochs;
mod fit;
mod names;
mod plot;
mod sizes;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use self::curve::Curve;
use crate::cases::Scheme;
use crate::contenders::{self, Field, Side};
use crate::load::{self, Pace, Work};
use crate::options::{Place, ScaleOptions};
use crate::report::Measured;
use crate::run::{in_folder, measure};

/// All curves.
const NAMES: [&str; 8] = [
    "put-by-size",
    "get-by-size",
    "range-by-size",
    "get-by-connections",
    "list-by-names",
    "walk-by-names",
    "get-by-epochs",
    "streams-256",
];

/// A run, from the start of the store to the report.
pub(crate) fn run(options: &ScaleOptions) -> Result<()> {
    ensure!(NAMES.iter().any(|name| options.wants(name)), "no curve has such a name; there are {NAMES:?}");
    raise_open_files(4 * options.connections_max as u64 + 1_024)?;
    in_folder(|dir| run_in(options, dir))
}

/// A connection is a file at the client, two at a proxy and one at the store.
fn raise_open_files(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum;
    ensure!(
        maximum.is_none_or(|maximum| maximum >= wanted),
        "{wanted} open files are needed, and {maximum:?} are allowed (ulimit -Hn): lower --connections-max"
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).context("open files")
}

fn run_in(options: &ScaleOptions, dir: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    std::fs::create_dir_all(&options.out)?;
    let mut curves = Vec::new();
    for name in NAMES.iter().filter(|name| options.wants(name)) {
        println!("{name}");
        let curve = curve(options, name, &dir.join(name), &runtime).with_context(|| (*name).to_owned())?;
        println!("\n{}", table::markdown(&curve));
        curves.push(curve);
        // After each: a run takes long.
        save(&curves, &options.out)?;
    }
    println!("{0}/scale.json {0}/scale.md {0}/scale-*.svg", options.out.display());
    Ok(())
}

/// Everybody is started for each curve: what a program holds after one is no figure of the next.
fn curve(options: &ScaleOptions, name: &str, dir: &Path, runtime: &tokio::runtime::Runtime) -> Result<Curve> {
    std::fs::create_dir(dir)?;
    let field = contenders::start(&options.who, &Place::default(), dir)?;
    runtime.block_on(async {
        let scale = Scale { options, field: &field };
        for (_, side) in scale.everybody() {
            load::make_bucket(&side.target).await?;
        }
        scale.curve(name).await
    })
}

fn save(curves: &[Curve], out: &Path) -> Result<()> {
    let all = json!({
        "curves": curves.iter().map(Curve::to_json).collect::<Vec<_>>(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
    });
    std::fs::write(out.join("scale.json"), serde_json::to_vec_pretty(&all)?)?;
    let tables: Vec<String> = curves.iter().map(table::markdown).collect();
    std::fs::write(out.join("scale.md"), tables.join("\n"))?;
    for curve in curves {
        std::fs::write(out.join(format!("scale-{}.svg", curve.name)), plot::svg(curve))?;
    }
    Ok(())
}

impl ScaleOptions {
    fn wants(&self, curve: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| curve.contains(text))
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// A run.
struct Scale<'a> {
    options: &'a ScaleOptions,
    field: &'a Field,
}

impl Scale<'_> {
    async fn curve(&self, name: &str) -> Result<Curve> {
        match name {
            "put-by-size" => self.put_by_size().await,
            "get-by-size" => self.get_by_size().await,
            "range-by-size" => self.range_by_size().await,
            "get-by-connections" => self.get_by_connections().await,
            "streams-256" => self.streams().await,
            "list-by-names" => self.list_by_names().await,
            "walk-by-names" => self.walk_by_names().await,
            _ => self.get_by_epochs().await,
        }
    }

    /// Everybody over TLS.
    fn everybody(&self) -> Vec<(&str, &Side)> {
        let contenders = self.field.contenders.iter();
        contenders
            .filter_map(|contender| Some((contender.name.as_str(), contender.side(Scheme::Tls)?)))
            .collect()
    }

    /// The store itself, and Claviger: where nginx does what the store does.
    fn pair(&self) -> Vec<(&str, &Side)> {
        let mut all = self.everybody();
        all.retain(|(name, _)| *name != contenders::NGINX);
        all
    }

    async fn measure(&self, side: &Side, work: &Work, connections: usize) -> Result<Measured> {
        measure(side, work, Pace::Closed(connections), self.options.time()).await
    }
}
