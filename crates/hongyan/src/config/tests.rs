use super::load::Faults;
use super::setting::{Group, Setting, Value, Visitor};
use super::*;

fn sources(set: &[&str]) -> Sources {
    Sources {
        set: set.iter().map(|&item| item.to_owned()).collect(),
        ..Sources::default()
    }
}

fn with_file(text: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Loaded, Faults> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let environment: Vec<_> = environment
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Sources {
        config: Some(file.path().to_owned()),
        ..sources(set)
    }
    .load_with(&environment)
}

#[test]
fn nothing_set_is_a_valid_configuration() {
    let loaded = sources(&[]).load_with(&[]).unwrap();
    assert_eq!(loaded.config.http.listen.to_string(), "127.0.0.1:7400");
    assert!(loaded.origins.is_empty());
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = "[http]\nlisten = \"127.0.0.1:1001\"\n[log]\nformat = \"json\"\n";
    let port = |environment: &[(&str, &str)], set: &[&str]| {
        let loaded = with_file(file, environment, set).unwrap();
        (
            loaded.config.http.listen.port(),
            loaded.origins["http.listen"].clone(),
        )
    };
    let variable = [("HONGYAN_HTTP_LISTEN", "127.0.0.1:1002")];
    assert_eq!(port(&[], &[]), (1001, Origin::File));
    assert_eq!(port(&variable, &[]), (1002, Origin::Environment));
    assert_eq!(
        port(&variable, &["http.listen=127.0.0.1:1003"]),
        (1003, Origin::Flag)
    );
}

#[test]
fn all_faults_are_reported_together_and_by_name() {
    let faults = with_file(
        "dta = \"x\"\n[http]\nlisten = 7400\ntls_cert = \"a.pem\"\n[gateway]\nreactors = 1000\n[store]\nengine = \"rocks\"\n",
        &[("HONGYAN_SHUTDOWN_STEP_MS", "soon")],
        &["store.accept_loss=maybe", "nonsense"],
    )
    .unwrap_err();
    let text = faults.to_string();
    for part in [
        "`dta` is not a setting",
        "did you mean `data`?",
        "`http.listen` must be an address with a port, not integer",
        "`http.tls_key` is missing although http.tls_cert is set",
        "`gateway.reactors` must be between 0 and 64, not 1000",
        "`store.engine` must be \"fjall\" or \"sqlite\", not `rocks`",
        "`shutdown.step_ms` must be a whole number, not `soon` (HONGYAN_SHUTDOWN_STEP_MS)",
        "`store.accept_loss` must be true or false, not `maybe` (--set store.accept_loss)",
        "`--set nonsense` must be name=value",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert_eq!(faults.0.len(), 8);
}

#[test]
fn a_broken_file_is_named_with_its_line_and_without_its_text() {
    let text = with_file("[seal]\nkey = \"very-secret\n", &[], &[])
        .unwrap_err()
        .to_string();
    assert!(text.contains("is not TOML: line 2"), "{text}");
    assert!(!text.contains("very-secret"), "{text}");
    let missing = Sources {
        config: Some("/nowhere/hongyan.toml".into()),
        ..Sources::default()
    };
    let text = missing.load_with(&[]).unwrap_err().to_string();
    assert!(
        text.contains("/nowhere/hongyan.toml cannot be read"),
        "{text}"
    );
}

#[test]
fn two_listeners_cannot_share_an_address() {
    let text = sources(&["http.listen=127.0.0.1:7500"])
        .load_with(&[])
        .unwrap_err()
        .to_string();
    assert!(text.contains("which http.listen has already"), "{text}");
    sources(&[
        "http.listen=127.0.0.1:0",
        "sandbox.control_listen=127.0.0.1:0",
    ])
    .load_with(&[])
    .unwrap();
}

#[test]
fn an_open_mqtt_space_that_others_reach_needs_a_password() {
    let open = |set: &[&str]| {
        let set = [&["mqtt.open_listen=0.0.0.0:1884"], set].concat();
        sources(&set)
            .load_with(&[])
            .map_err(|faults| faults.to_string())
    };
    let text = open(&[]).unwrap_err();
    assert!(
        text.contains("`mqtt.open_listen` is 0.0.0.0:1884"),
        "{text}"
    );
    let text = open(&["mqtt.open_password=p"]).unwrap_err();
    assert!(text.contains("`mqtt.open_user` is missing"), "{text}");
    let loaded = open(&["mqtt.open_user=ann", "mqtt.open_password=hush-hush"]).unwrap();
    assert!(!effective(&loaded).contains("hush-hush"));
    sources(&["mqtt.open_listen=127.0.0.1:1884"])
        .load_with(&[])
        .unwrap();
    sources(&["mqtt.open_listen=[::1]:1884"])
        .load_with(&[])
        .unwrap();
}

#[test]
fn a_misspelt_variable_is_a_warning_and_a_foreign_one_is_none() {
    let environment = [("HONGYAN_HTTP_LISTN", "x"), ("HONGYAN_SERVER_KEY", "y")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = sources(&[]).load_with(&environment).unwrap();
    assert_eq!(
        loaded.warnings,
        ["the variable HONGYAN_HTTP_LISTN sets nothing; did you mean HONGYAN_HTTP_LISTEN?"]
    );
}

#[test]
fn the_effective_configuration_can_be_read_back_and_hides_secrets() {
    let set = [
        "seal.key=c2VjcmV0",
        "gateway.reactors=2",
        "egress.extra_ca=ca.pem",
    ];
    let loaded = sources(&set).load_with(&[]).unwrap();
    let text = effective(&loaded);
    assert!(!text.contains("c2VjcmV0"), "{text}");
    assert!(text.contains("reactors = 2  # from a flag"), "{text}");
    assert!(!format!("{loaded:?}").contains("c2VjcmV0"));
    let again = with_file(&text, &[], &[]).unwrap();
    assert_eq!(again.config.gateway.reactors, 2);
    assert_eq!(again.config.egress.extra_ca, Some("ca.pem".into()));
}

#[test]
fn every_setting_has_words_and_a_default_within_its_bounds() {
    struct Check(usize);
    impl Visitor for Check {
        fn group(&mut self, _: &'static str, doc: &'static [&'static str]) {
            assert!(!doc.is_empty());
        }
        fn setting(&mut self, setting: Setting, value: &mut dyn Value) {
            assert!(!setting.doc.is_empty(), "{} has no words", setting.path);
            if let (Some((min, max)), Some(number)) = (setting.range, value.number()) {
                assert!((min..=max).contains(&number), "{}", setting.path);
            }
            self.0 += 1;
        }
    }
    let mut check = Check(0);
    Config::default().visit(&mut check);
    assert!(check.0 > 10);
}

/// `HONGYAN_GOLDEN=write` (as `cargo xtask golden` sets it) renews the page.
#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = reference();
    if std::env::var("HONGYAN_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/configuration.md is old: run `cargo xtask golden`"
    );
}
