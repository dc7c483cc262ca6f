//! Files.

use serde_json::Value;
use tests::{Recorder, Store, in_fresh_netns, kind, port, validate};

use super::play;

#[test]
fn files_have_what_their_filters_select_in_their_formats() {
    in_fresh_netns(|| {
        let store = Store::new();
        let [json, text, config] = ["json", "text", "netwatch.toml"].map(|name| store.beside(name));
        let options = format!(
            "[[output]]\nkind = 'file'\nto = '{}'\ncommunity-id = true\n\n\
             [[output]]\nkind = 'file'\nto = '{}'\nformat = 'text'\nfilter = 'event:listen,unlisten'\n",
            json.display(),
            text.display()
        );
        std::fs::write(&config, options).unwrap();
        let recorder = Recorder::start(&store.path(), &["--config", config.to_str().unwrap()]);
        play(&store);
        recorder.finish();
        let lines = std::fs::read_to_string(&json).unwrap();
        let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        events.iter().for_each(validate);
        let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
        let closed: Vec<_> = events.iter().filter(|event| kind(event) == "close").collect();
        assert_eq!(closed.len(), 2, "{events:#?}");
        assert!(closed.iter().all(|event| event["community_id"].is_string()), "{closed:#?}");
        assert!(events.iter().any(|event| kind(event) == "open" && port(event, "local") == 2000));
        let text = std::fs::read_to_string(&text).unwrap();
        let kinds: Vec<_> = text.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
        assert_eq!(kinds, ["ready", "listen", "unlisten"], "{text}");
    });
}
