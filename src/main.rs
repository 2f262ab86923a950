//! The command line program.

fn main() {
    std::process::exit(collab_p2p::cli::main());
}
