use std::env;

use drill::Programs;

/// The programs as cargo builds them before it runs the tests of the workspace. Where this package
/// is tested alone they are those of the last build.
pub(crate) fn programs() -> Programs {
    // This program is in the folder `deps` of that of all programs.
    let this = env::current_exe().unwrap();
    Programs::in_folder(this.ancestors().nth(2).unwrap()).unwrap()
}
