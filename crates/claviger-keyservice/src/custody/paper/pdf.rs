//! One page A4 to print: what the share is, its QR code, its words. Letters are those that every reader has; the page is not
//! compressed, so that its words can be read back from the file.

use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str, TextStr};
use zeroize::Zeroizing;

use super::Sheet;
use super::qr::Code;
use crate::ServiceError;
use crate::custody::words;

/// A4 in points.
const WIDTH: f32 = 595.0;
const HEIGHT: f32 = 842.0;
const MARGIN: f32 = 56.0;
/// Side of the QR code.
const CODE_SIDE: f32 = 190.0;
const PROPORTIONAL: Name<'static> = Name(b"P");
const BOLD: Name<'static> = Name(b"B");
const FIXED: Name<'static> = Name(b"F");

/// The page.
pub(super) fn page(sheet: &Sheet<'_>, code: &Code) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
    let [catalog, pages, page, content, info, proportional, bold, fixed] =
        [1, 2, 3, 4, 5, 6, 7, 8].map(Ref::new);
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page]).count(1);
    pdf.document_info(info).title(TextStr(&sheet.title()));
    let mut first = pdf.page(page);
    first.parent(pages).media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT)).contents(content);
    first.resources().fonts().pair(PROPORTIONAL, proportional).pair(BOLD, bold).pair(FIXED, fixed);
    first.finish();
    let letters: [(Ref, &[u8]); 3] =
        [(proportional, b"Helvetica"), (bold, b"Helvetica-Bold"), (fixed, b"Courier-Bold")];
    for (font, name) in letters {
        pdf.type1_font(font).base_font(Name(name));
    }
    let drawn = draw(sheet, code).finish();
    pdf.stream(content, &drawn);
    Ok(Zeroizing::new(pdf.finish()))
}

fn draw(sheet: &Sheet<'_>, code: &Code) -> Content {
    let mut content = Content::new();
    let mut y = HEIGHT - MARGIN - 18.0;
    write(&mut content, (BOLD, 20.0), MARGIN, y, &sheet.title());
    y -= 26.0;
    for line in sheet.purpose() {
        write(&mut content, (PROPORTIONAL, 10.5), MARGIN, y, &line);
        y -= 15.0;
    }
    y -= 12.0;
    draw_code(&mut content, code, y);
    let mut row = y - 12.0;
    for (name, value) in sheet.fields() {
        write(&mut content, (PROPORTIONAL, 10.0), MARGIN + CODE_SIDE + 20.0, row, name);
        write(&mut content, (FIXED, 9.0), MARGIN + CODE_SIDE + 70.0, row, &value);
        row -= 17.0;
    }
    y -= CODE_SIDE + 34.0;
    let below = "The QR code and these words are the same share. Either is enough.";
    write(&mut content, (PROPORTIONAL, 10.5), MARGIN, y, below);
    y -= 22.0;
    for row in sheet.word_rows() {
        write(&mut content, (FIXED, 11.5), MARGIN, y, &row);
        y -= 18.0;
    }
    content
}

fn write(content: &mut Content, (font, size): (Name<'_>, f32), x: f32, y: f32, text: &str) {
    content.begin_text().set_font(font, size).next_line(x, y).show(Str(text.as_bytes())).end_text();
}

/// The code with its upper left corner at the margin and `top`.
fn draw_code(content: &mut Content, code: &Code, top: f32) {
    let points = |modules: usize| f32::from(u16::try_from(modules).unwrap_or(u16::MAX));
    let side = CODE_SIDE / points(code.width);
    for y in 0..code.width {
        let mut x = 0;
        while x < code.width {
            let run = (x..code.width).take_while(|x| code.is_dark(*x, y)).count();
            if run > 0 {
                let (left, bottom) = (MARGIN + points(x) * side, top - points(y + 1) * side);
                content.rect(left, bottom, points(run) * side, side);
            }
            x += run + 1;
        }
    }
    content.fill_nonzero();
}

/// The numbered words of a page that was written here.
///
/// # Errors
/// [`ServiceError::Share`] if there are none.
pub(super) fn words(content: &[u8]) -> Result<Zeroizing<String>, ServiceError> {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    for line in content.split(|byte| *byte == b'\n') {
        let shown = line.strip_prefix(b"(").and_then(|rest| rest.strip_suffix(b") Tj"));
        let row = shown.and_then(|row| std::str::from_utf8(row).ok()).filter(|row| is_row(row));
        if let Some(row) = row {
            text.push_str(row);
            text.push('\n');
        }
    }
    if text.is_empty() {
        return Err(ServiceError::Share(
            "this PDF was not written by claviger, or saved by something else since; type its words, or scan its QR code",
        ));
    }
    Ok(text)
}

/// Number, word, number, word …
fn is_row(row: &str) -> bool {
    let mut tokens = row.split_whitespace();
    let mut pairs = 0;
    while let Some(number) = tokens.next() {
        if !words::is_number(number) || tokens.next().is_none_or(words::is_number) {
            return false;
        }
        pairs += 1;
    }
    pairs > 0
}
