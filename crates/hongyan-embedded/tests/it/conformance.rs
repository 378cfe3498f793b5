//! Every suite on both engines; each case is a test of its own.

macro_rules! engine {
    ($engine:ident) => {
        mod $engine {
            mod registry {
                hongyan_testkit::registry_suite!(crate::subject::$engine);
            }
            mod inbox {
                hongyan_testkit::inbox_suite!(crate::subject::$engine);
            }
            mod push {
                hongyan_testkit::push_suite!(crate::subject::$engine);
            }
            mod work {
                hongyan_testkit::work_suite!(crate::subject::$engine);
            }
            mod ledger {
                hongyan_testkit::ledger_suite!(crate::subject::$engine);
            }
            mod quota {
                hongyan_testkit::quota_suite!(crate::subject::$engine);
            }
            mod commit {
                hongyan_testkit::commit_suite!(crate::subject::$engine);
            }
        }
    };
}

engine!(fjall);
engine!(sqlite);
