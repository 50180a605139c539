//! The image of nodes and holders, made from this program by `docker/build-image.sh`, without a registry.

use super::engine::{BUILDING, docker, output};
use anyhow::{Context, Result, bail};
use std::{
    hash::{DefaultHasher, Hasher},
    io::Read,
    path::Path,
};
use tokio::process::Command;

/// The recipe: the script in the repository, carried by the program so that one binary is enough.
pub const RECIPE: &str = include_str!("../../../docker/build-image.sh");
/// The repository of the images; the tag names the program's content.
pub const REPOSITORY: &str = "tribunal-node";

/// The image of a program, built if it is not there.
pub async fn of_program(program: &Path) -> Result<String> {
    let tag = format!("{REPOSITORY}:{:016x}", fingerprint(program)?);
    if docker(&["image", "inspect", "--format", "{{.Id}}", &tag]).await.is_ok() {
        return Ok(tag);
    }
    eprintln!("building the image {tag} from {} …", program.display());
    build(program, &tag).await?;
    Ok(tag)
}

/// Builds the image of a program under a tag.
pub async fn build(program: &Path, tag: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(RECIPE).arg("build-image.sh").arg(program).arg(tag);
    let out = output(command, "build-image.sh", BUILDING).await.map_err(anyhow::Error::msg)?;
    if !out.status.success() {
        bail!("the image {tag} could not be built: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// A number for the program's content: another program, another image.
fn fingerprint(program: &Path) -> Result<u64> {
    let cannot = || format!("cannot read {}", program.display());
    let mut file = std::fs::File::open(program).with_context(cannot)?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(cannot)? {
            0 => break,
            n => hasher.write(&buffer[..n]),
        }
    }
    hasher.write(RECIPE.as_bytes());
    Ok(hasher.finish())
}
