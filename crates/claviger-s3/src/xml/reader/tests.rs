use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { len_max: 1000, elements_max: 20 };

fn text_of_root(body: &str) -> Result<String, XmlError> {
    Document::parse(body.as_bytes(), "r", LIMITS).map(|document| document.root().text().into_owned())
}

#[test]
fn only_the_entities_of_xml_are_expanded() {
    let text = text_of_root("<r>&amp;&lt;&gt;&quot;&apos;&#65;&#x42;&#x1;<![CDATA[<&x;]]></r>").unwrap();
    assert_eq!(text, "&<>\"'AB\u{1}<&x;");
    for body in
        ["<r>&foo;</r>", "<r>&</r>", "<r>&#0;</r>", "<r>\0</r>", "<r><![CDATA[\0]]></r>", "<r>&#xd800;</r>"]
    {
        assert_eq!(text_of_root(body), Err(XmlError::Malformed), "{body}");
    }
}

#[test]
fn a_document_type_is_refused() {
    let bomb = "<!DOCTYPE r [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><r>&b;</r>";
    assert_eq!(text_of_root(bomb), Err(XmlError::Malformed));
    assert_eq!(text_of_root("<!DOCTYPE r SYSTEM \"file:///etc/passwd\"><r/>"), Err(XmlError::Malformed));
}

#[test]
fn limits_hold() {
    let deep = format!("{}{}", "<r>".repeat(17), "</r>".repeat(17));
    assert_eq!(text_of_root(&deep), Err(XmlError::TooLarge));
    let wide = format!("<r>{}</r>", "<a/>".repeat(20));
    assert_eq!(text_of_root(&wide), Err(XmlError::TooLarge));
    let long = format!("<r>{}</r>", "x".repeat(1000));
    assert_eq!(text_of_root(&long), Err(XmlError::TooLarge));
}

#[test]
fn broken_documents_are_refused() {
    for body in ["", "x", "<r>", "<r></x>", "<r/><r/>", "<r/>x", "</r>", "<r><a></r></a>", "<r", "<>x</>"] {
        assert_eq!(text_of_root(body), Err(XmlError::Malformed), "{body}");
    }
    assert_eq!(Document::parse(b"<r>\xff</r>", "r", LIMITS).unwrap_err(), XmlError::Malformed);
    assert_eq!(text_of_root("<x/>"), Err(XmlError::UnexpectedRoot("r")));
}

#[test]
fn prefixes_layout_and_comments_do_not_matter() {
    let body =
        "\u{feff}<?xml version=\"1.0\"?>\n<!-- c -->\n<s3:r xmlns:s3=\"x\">\n <s3:a>1</s3:a>\n</s3:r>\n";
    let document = Document::parse(body.as_bytes(), "r", LIMITS).unwrap();
    let element = document.root();
    assert_eq!(element.number::<u32>("a"), Ok(Some(1)));
}

#[test]
fn a_doubled_element_is_ambiguous() {
    let document = Document::parse(b"<r><a>1</a><a>2</a></r>", "r", LIMITS).unwrap();
    let element = document.root();
    assert_eq!(element.text_of("a"), Err(XmlError::Invalid("a")));
}

#[test]
fn numbers_and_booleans_are_strict() {
    let document = Document::parse(b"<r><a>+1</a><b> 7 </b><c>maybe</c><d>300</d></r>", "r", LIMITS).unwrap();
    let element = document.root();
    assert_eq!(element.number::<u32>("a"), Err(XmlError::Invalid("a")));
    assert_eq!(element.number::<u32>("b"), Ok(Some(7)));
    assert_eq!(element.boolean("c"), Err(XmlError::Invalid("c")));
    assert_eq!(element.number::<u8>("d"), Err(XmlError::Invalid("d")));
}

/// What is the same in two readings of a document.
fn seen<'a>(nodes: &'a [Node<'a>]) -> Vec<(&'a str, String, usize)> {
    nodes.iter().map(|node| (node.name, node.text.value().into_owned(), node.end)).collect()
}

/// Reads a document the fast way, which has to agree with the other; whether it was for the fast way at all.
fn is_plain(body: &str, elements_max: usize) -> bool {
    let Some(plain) = plain::read(body, elements_max) else { return false };
    for takes_instructions in [true, false] {
        let full = full::read(body, elements_max, takes_instructions).unwrap();
        assert_eq!(seen(&plain), seen(&full), "{body}");
    }
    true
}

#[test]
fn what_stores_write_is_read_the_fast_way() {
    for body in [
        "<r/>",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<r xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n  <a>1 &amp; 2</a>\n  <b />\n</r>\n",
        "<r><o xmlns:xsi=\"http://x/y\" xsi:type=\"CanonicalUser\"><ID>é</ID></o>&#34;</r>",
        "<r>a<b>c</b>d<e/>f</r>",
        "<r a=\"/\"/>",
        "<r>></r>",
    ] {
        assert!(is_plain(body, 20), "{body}");
    }
}

#[test]
fn what_else_there_is_in_documents_is_left_to_the_other_reader() {
    for body in [
        "\u{feff}<r/>",
        "<r>\r\n</r>",
        "<r>\0</r>",
        "<!-- c --><r/>",
        "<r><!-- c --></r>",
        "<r><![CDATA[a]]></r>",
        "<!DOCTYPE r><r/>",
        "<?i?><r/>",
        "<r><?i?></r>",
        "<r/><?i?>",
        "<s3:r/>",
        "<r>&x;</r>",
        "<r>&#0;</r>",
        "<r></r >",
        "<r a='>'/>",
        "<r a=\">\"/>",
        "<?xml ?",
        "<r",
        "<r/>x",
        "<r/><r/>",
        "<r><a></r></a>",
        "</r>",
        "",
    ] {
        assert!(!is_plain(body, 20), "{body}");
    }
    assert!(!is_plain(&"<r/>".repeat(2), 20));
    let wide = format!("<r>{}</r>", "<a/>".repeat(20));
    assert!(!is_plain(&wide, 20) && is_plain(&wide, 21));
    let deep = |levels| format!("{}{}", "<r>".repeat(levels), "</r>".repeat(levels));
    assert!(!is_plain(&deep(17), 20) && is_plain(&deep(16), 20));
}

#[test]
fn fields_are_found_in_any_order() {
    let body = b"<r><c>3</c><x/><a>1</a><y/><b>2</b></r>";
    let document = Document::parse(body, "r", LIMITS).unwrap();
    let root = document.root();
    let found = root.fields(&["a", "b", "c", "x", "z"], |child| child.name() == "x").unwrap();
    assert_eq!(found.map(|field| field.string().into_owned()), ["1", "2", "3", "", ""]);
    assert_eq!(found.map(|field| field.text().is_some()), [true, true, true, false, false]);
    let document = Document::parse(b"<r><a/><b/><a/></r>", "r", LIMITS).unwrap();
    assert_eq!(document.root().fields(&["a", "b"], |_| false).unwrap_err(), XmlError::Invalid("a"));
    assert!(document.root().fields(&["a", "b"], |child| child.name() == "a").is_ok());
}

/// Pieces of documents, which now and then make one up.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<r>",
        "</r>",
        "<a>",
        "</a>",
        "<b>",
        "</b>",
        "<r/>",
        "<a/>",
        "<a />",
        "<a x=\"1\">",
        "<a x=\">\">",
        "<a x='1'>",
        "<a x=\"/\"/>",
        "</a >",
        "t",
        " ",
        "\n",
        "\r",
        "&amp;",
        "&quot;",
        "&#65;",
        "&#x41;",
        "&#0;",
        "&#xg;",
        "&x;",
        "&",
        ";",
        ">",
        "<",
        "\"",
        "'",
        "/",
        "<!-- - -->",
        "<![CDATA[<a>]]>",
        "]]>",
        "<?x?>",
        "<?xml version=\"1.0\"?>",
        "<!DOCTYPE r>",
        "<x:a>",
        "</x:a>",
        "é",
        "\0",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "&#x2028;",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_the_reader_panic(body in "[<>/&;!?\\[\\]a-c #x0-9\"=-]{0,200}") {
        let _ = Document::parse(body.as_bytes(), "r", LIMITS);
        is_plain(&body, 20);
    }

    #[test]
    fn both_readers_agree_on_pieces_of_documents(body in pieces()) {
        is_plain(&body, 20);
        is_plain(&format!("<r>{body}</r>"), 20);
        is_plain(&format!("<?xml version=\"1.0\"?><r><a>{body}</a></r>"), 20);
    }

    #[test]
    fn both_readers_agree_on_documents(
        leaves in prop::collection::vec(("[abr]", "([ab> \n\"'é]|&amp;|&lt;|&#1;|&#x10ffff;){0,6}", "[abr]"), 0..6),
        cut in 0_usize..400,
    ) {
        let mut body = "<r>".to_owned();
        for (outer, text, inner) in &leaves {
            body.push_str(&format!("<{outer}>{text}<{inner}>{text}</{inner}>{text}</{outer}>"));
        }
        body.push_str("</r>");
        prop_assert!(is_plain(&body, 20));
        if body.is_char_boundary(cut) && cut < body.len() {
            prop_assert!(!is_plain(&body[..cut], 20), "a part of a document is none");
        }
    }
}
