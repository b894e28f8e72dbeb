//! `fleet program`.

use super::{Context, absent, progress};
use crate::args::fleet::{GetProgramArgs, ProgramVerb, SureArgs, UploadArgs};
use crate::control::Revision;
use crate::error::{CliError, Exit};
use crate::input;
use crate::render::fleet::program as render;
use futures_util::stream;
use indicatif::ProgressBar;
use pointsman_model::api::ProblemKind;
use pointsman_model::fleet::LibraryProgram;
use pointsman_model::{ProgramName, Sha256};
use reqwest::Body;
use std::io::{self, Write as _};

/// The largest object that a control plane and a node take.
const MAX_OBJECT: usize = 16 << 20;

/// How much of an upload is handed over at a time, and how finely its progress is told.
const CHUNK: usize = 64 << 10;

/// How often an upload is begun again when somebody else was faster.
const TRIES: usize = 3;

pub(super) async fn run(context: &Context<'_>, verb: ProgramVerb) -> Result<Exit, CliError> {
    match verb {
        ProgramVerb::Upload(args) => upload(context, &args).await,
        ProgramVerb::Ls => {
            let all = context.control.programs().await?;
            context.output.answer(&all, |all, look| render::programs(look, &all.items))?;
            Ok(Exit::Done)
        }
        ProgramVerb::Show { name } => {
            let found = find(context, &name).await?;
            context.output.answer(&found, |found, look| render::program(look, found))?;
            Ok(Exit::Done)
        }
        ProgramVerb::Get(args) => get(context, &args).await,
        ProgramVerb::Rm { name, sure } => remove(context, &name, &sure).await,
    }
}

async fn find(context: &Context<'_>, name: &ProgramName) -> Result<LibraryProgram, CliError> {
    context.control.program(name).await?.ok_or_else(|| absent("program", name))
}

async fn upload(context: &Context<'_>, args: &UploadArgs) -> Result<Exit, CliError> {
    let UploadArgs { name, file } = args;
    // Its size is looked at here: a server that refuses a request by its length may close the
    // connection before its answer is heard.
    let object = input::read(file, "an object", MAX_OBJECT)?;
    let hash = Sha256::of(&object);
    for _ in 0..TRIES {
        let before = context.control.program(name).await?;
        let revision = before.as_ref().map(|program| program.revision);
        let uploaded = match before {
            Some(same) if same.sha256 == hash => same,
            before => {
                let bar = progress::bytes(context.output, object.len() as u64, name.to_string());
                let only = before.map_or(Revision::Absent, |before| Revision::At(before.revision));
                let size = object.len() as u64;
                let body = body(&object, &bar);
                let result = context.control.upload(name, only, size, body).await;
                bar.finish_and_clear();
                match result {
                    Err(error) if error.is(ProblemKind::PreconditionFailed) => continue,
                    other => other?,
                }
            }
        };
        context.output.answer(&uploaded, |it, look| render::uploaded(look, it, revision))?;
        return Ok(Exit::Done);
    }
    Err(CliError::Contended { what: "program", name: name.to_string() })
}

/// The object in pieces, each told to the bar when it is asked for.
fn body(object: &[u8], bar: &ProgressBar) -> Body {
    let bar = bar.clone();
    let chunks: Vec<Vec<u8>> = object.chunks(CHUNK).map(<[u8]>::to_vec).collect();
    Body::wrap_stream(stream::iter(chunks.into_iter().map(move |chunk| {
        bar.inc(chunk.len() as u64);
        Ok::<_, io::Error>(chunk)
    })))
}

async fn get(context: &Context<'_>, args: &GetProgramArgs) -> Result<Exit, CliError> {
    let GetProgramArgs { name, output } = args;
    if output.is_none() && context.output.terminal {
        return Err(CliError::Binary { name: format!("program {name}") });
    }
    let program = find(context, name).await?;
    let object = context.control.object(name).await?;
    let hash = Sha256::of(&object);
    if hash != program.sha256 {
        let why = format!("the object has sha256 {hash}, and not {}", program.sha256);
        return Err(CliError::Unverified { name: format!("program {name}"), why });
    }
    match output {
        Some(file) => write(file, &object)?,
        None => {
            let mut stdout = io::stdout().lock();
            match stdout.write_all(&object).and_then(|()| stdout.flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(CliError::Output(error));
                }
                _ => {}
            }
        }
    }
    Ok(Exit::Done)
}

/// Writes a file beside where it belongs, and renames it: nobody sees half of it.
pub(super) fn write(file: &std::path::Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |source| CliError::Write { name: file.display().to_string(), source };
    // What is no plain file, such as /dev/null or a pipe, is written to.
    if std::fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        return std::fs::write(file, bytes).map_err(failed);
    }
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| std::path::Path::new("."));
    let mut new = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(failed)?;
    new.write_all(bytes).map_err(failed)?;
    new.persist(file).map(drop).map_err(|error| failed(error.error))
}

async fn remove(
    context: &Context<'_>,
    name: &ProgramName,
    sure: &SureArgs,
) -> Result<Exit, CliError> {
    let program = find(context, name).await?;
    context.sure("remove", sure, |_| render::removal(&program))?;
    context.control.remove_program(&program).await?;
    context.removed("program", name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_others_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.o");
        for content in [&b"long content"[..], b"new"] {
            write(&file, content).unwrap();
            assert_eq!(std::fs::read(&file).unwrap(), content);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        write(std::path::Path::new("/dev/null"), b"x").unwrap();
        let missing = directory.path().join("none/a.o");
        let error = write(&missing, b"x").unwrap_err().to_string();
        assert!(error.contains("none/a.o: "), "{error}");
    }
}
