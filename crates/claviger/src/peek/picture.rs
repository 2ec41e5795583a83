//! Two views in boxes: beside each other where the terminal is wide enough, else one below the other.

use super::view::{View, hex_width};

/// What a piece of text is, which decides about its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Dim,
    /// What only the user may see.
    Yours,
    /// Ciphertext.
    Theirs,
    /// Readable structure around ciphertext.
    Structure,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\u{1b}[2m",
            Self::Yours => "\u{1b}[32m",
            Self::Theirs => "\u{1b}[33m",
            Self::Structure => "\u{1b}[36m",
        }
    }
}

/// One line of styled pieces.
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    pub(super) fn new(style: Style, text: &str) -> Self {
        Self(vec![(style, text.to_owned())])
    }

    pub(super) const fn empty() -> Self {
        Self(Vec::new())
    }

    pub(super) fn add(&mut self, style: Style, text: &str) {
        self.0.push((style, text.to_owned()));
    }

    /// Columns that it takes. One character is taken for one column.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    #[cfg(test)]
    pub(super) fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    fn push_to(&self, out: &mut String, colours: bool) {
        for (style, text) in &self.0 {
            push_styled(out, *style, text, colours);
        }
    }
}

fn push_styled(out: &mut String, style: Style, text: &str, colours: bool) {
    if colours && !style.code().is_empty() {
        out.push_str(style.code());
        out.push_str(text);
        out.push_str("\u{1b}[0m");
    } else {
        out.push_str(text);
    }
}

/// Columns around the text of one box: a border and a space on each side.
const FRAME: usize = 4;
/// Columns between two boxes.
const GAP: usize = 1;

/// Draws both views for a terminal of `width` columns.
pub(super) fn draw(views: &[View; 2], width: usize, colours: bool) -> String {
    let half = width.saturating_sub(GAP) / 2;
    let boxes = if half >= hex_width(8) + FRAME {
        // Wider than two full rows of the dump helps nobody's eyes.
        let inner = (half - FRAME).min(hex_width(16));
        beside(boxed(&views[0], inner, colours), boxed(&views[1], inner, colours), inner + FRAME)
    } else {
        let inner = width.saturating_sub(FRAME).max(hex_width(8));
        let mut lines = boxed(&views[0], inner, colours);
        lines.extend(boxed(&views[1], inner, colours));
        lines
    };
    boxes.into_iter().fold(String::new(), |text, line| text + &line + "\n")
}

fn boxed(view: &View, inner: usize, colours: bool) -> Vec<String> {
    let title = format!(" {} ", view.title);
    let mut top = String::new();
    push_styled(&mut top, view.accent, "╭─", colours);
    push_styled(&mut top, view.accent, &title, colours);
    let rest = (inner + FRAME).saturating_sub(3 + title.chars().count());
    push_styled(&mut top, view.accent, &format!("{}╮", "─".repeat(rest)), colours);
    let mut lines = vec![top];
    for line in view.lines(inner) {
        let mut text = String::new();
        push_styled(&mut text, view.accent, "│ ", colours);
        line.push_to(&mut text, colours);
        text.push_str(&" ".repeat(inner.saturating_sub(line.width())));
        push_styled(&mut text, view.accent, " │", colours);
        lines.push(text);
    }
    let mut bottom = String::new();
    push_styled(&mut bottom, view.accent, &format!("╰{}╯", "─".repeat(inner + 2)), colours);
    lines.push(bottom);
    lines
}

/// The shorter column is filled up below.
fn beside(left: Vec<String>, right: Vec<String>, left_width: usize) -> Vec<String> {
    let height = left.len().max(right.len());
    let line = |lines: &[String], index: usize| lines.get(index).cloned();
    (0..height)
        .map(|index| {
            let left = line(&left, index).unwrap_or_else(|| " ".repeat(left_width));
            let right = line(&right, index).unwrap_or_default();
            format!("{left}{}{right}", " ".repeat(GAP)).trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::s3_client::Reply;

    fn views() -> [View; 2] {
        let reply =
            |body: &[u8]| Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: body.to_vec() };
        [View::of_user(&reply(b"hello"), "b", "k"), View::of_provider(&reply(&[9; 150]), "b", "k")]
    }

    #[test]
    fn wide_terminals_show_both_beside_each_other_and_narrow_ones_below() {
        let wide = draw(&views(), 120, false);
        let first = wide.lines().next().unwrap();
        assert!(first.contains("You see") && first.contains("The provider has"), "{wide}");
        let narrow = draw(&views(), 70, false);
        assert!(!narrow.lines().next().unwrap().contains("The provider has"), "{narrow}");
        assert!(narrow.contains("The provider has"), "{narrow}");
    }

    #[test]
    fn boxes_have_straight_edges() {
        for width in [70, 100, 120, 200] {
            let text = draw(&views(), width, false);
            let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
            assert!(widths.iter().all(|&w| w <= width), "{text}");
            let top = widths[0];
            assert!(
                text.lines().filter(|line| line.ends_with(['│', '╮', '╯'])).all(|l| l.chars().count() == top),
                "{text}"
            );
        }
    }

    #[test]
    fn colours_are_only_there_when_asked_for() {
        assert!(!draw(&views(), 120, false).contains('\u{1b}'));
        assert!(draw(&views(), 120, true).contains('\u{1b}'));
    }
}
