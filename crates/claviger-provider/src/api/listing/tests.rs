use super::*;

fn index(keys: &[&str]) -> BTreeMap<String, Listed> {
    let listed = Listed { size: 1, etag: String::new(), last_modified_ms: 0, storage_class: None };
    keys.iter().map(|key| ((*key).to_owned(), listed.clone())).collect()
}

fn keys(page: &Page) -> Vec<&str> {
    page.contents.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition() {
    let index = index(&["a", "a/b", "a/c", "a//d", "b", "b/x/1", "b/x/2", "c", "ü"]);
    for delimiter in ["", "/"] {
        let whole = page(&index, "", delimiter, "", 1000);
        for max in 1..5 {
            let (mut contents, mut prefixes, mut after) = (Vec::new(), Vec::new(), String::new());
            loop {
                let page = page(&index, "", delimiter, &after, max);
                contents.extend(keys(&page).into_iter().map(ToOwned::to_owned));
                prefixes.extend(page.prefixes.clone());
                after = page.last.clone();
                if !page.truncated {
                    break;
                }
            }
            assert_eq!(contents, keys(&whole));
            assert_eq!(prefixes, whole.prefixes);
        }
    }
}

#[test]
fn a_prefix_and_a_delimiter_show_one_level() {
    let index = index(&["a", "a/b", "a/c/d", "a/c/e", "a//f", "ab"]);
    let page = page(&index, "a/", "/", "", 1000);
    assert_eq!(keys(&page), ["a/b"]);
    assert_eq!(page.prefixes, ["a//", "a/c/"]);
}

#[test]
fn a_page_of_nothing_is_not_truncated() {
    assert!(!page(&index(&["a"]), "", "", "", 0).truncated);
}

#[test]
fn a_marker_before_the_prefix_starts_at_the_prefix() {
    let index = index(&["a", "b1", "b2", "c"]);
    assert_eq!(keys(&page(&index, "b", "", "a", 10)), ["b1", "b2"]);
    assert_eq!(keys(&page(&index, "b", "", "b1", 10)), ["b2"]);
    assert!(keys(&page(&index, "b", "", "bz", 10)).is_empty());
}

#[test]
fn encoded_names_hold_no_plus() {
    assert_eq!(encode("a b+c/ü%"), "a%20b%2Bc/%C3%BC%25");
}
