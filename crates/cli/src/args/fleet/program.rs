//! Arguments of `fleet program`.

use super::SureArgs;
use clap::{Subcommand, ValueHint};
use pointsman_model::ProgramName;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum ProgramVerb {
    /// Upload an object, or another edition of one.
    ///
    /// Policies that name the program use the new edition with the next publish.
    #[command(after_help = "Example:\n  pointsman fleet program upload ddos build/ddos.o")]
    Upload(UploadArgs),

    /// List the programs of the fleet.
    #[command(visible_alias = "list")]
    Ls,

    /// Show what a program's object holds: functions, maps, globals.
    Show {
        /// The program.
        #[arg(value_name = "NAME")]
        name: ProgramName,
    },

    /// Fetch a program's object.
    #[command(after_help = "Example:\n  pointsman fleet program get ddos --output ddos.o")]
    Get(GetProgramArgs),

    /// Remove a program that no policy names.
    Rm {
        /// The program.
        #[arg(value_name = "NAME")]
        name: ProgramName,
        #[command(flatten)]
        sure: SureArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct UploadArgs {
    /// What policies call it.
    #[arg(value_name = "NAME")]
    pub(crate) name: ProgramName,

    /// The object file; `-` reads standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GetProgramArgs {
    /// The program.
    #[arg(value_name = "NAME")]
    pub(crate) name: ProgramName,

    /// Where to write it. [default: standard output, if that is no terminal]
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}
