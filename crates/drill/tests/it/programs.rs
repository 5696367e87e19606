use std::env;

use drill::Programs;

/// The programs that cargo builds before it runs the tests of the workspace. When this package is
/// tested alone, they come from the last build.
pub(crate) fn programs() -> Programs {
    // This program is in `deps`, below the folder of the programs.
    let this = env::current_exe().unwrap();
    Programs::in_folder(this.ancestors().nth(2).unwrap()).unwrap()
}
