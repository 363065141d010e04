//! The process shell: settings in, exit code out.

fn main() -> std::process::ExitCode {
    cell_app::main()
}
