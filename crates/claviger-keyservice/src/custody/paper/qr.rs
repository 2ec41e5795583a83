//! The share's line as a QR code. In capitals, because QR codes hold these, digits, `.` and `-` in 5.5 bits each; error
//! correction level Q, so that a quarter of the code may be lost to a stain or a fold.

use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

use crate::ServiceError;
use crate::custody::share::Share;

/// Light modules around the code, as the standard (ISO/IEC 18004) wants.
const QUIET: usize = 4;
/// Pixels of a module's side in the PNG.
const SCALE: usize = 8;
/// Largest side of a picture that is looked at, in pixels.
const SIDE_MAX: u32 = 8192;

/// A code's modules, without the quiet zone.
pub(super) struct Code {
    pub(super) width: usize,
    dark: Zeroizing<Vec<bool>>,
}

impl Code {
    pub(super) fn of(share: &Share) -> Result<Self, ServiceError> {
        let line = Zeroizing::new(share.to_line().to_ascii_uppercase());
        let code = QrCode::with_error_correction_level(line.as_bytes(), EcLevel::Q)
            .map_err(|_| ServiceError::Share("no QR code can be made of it"))?;
        let width = code.width();
        let dark = Zeroizing::new(code.into_colors().into_iter().map(|color| color == Color::Dark).collect());
        Ok(Self { width, dark })
    }

    pub(super) fn is_dark(&self, x: usize, y: usize) -> bool {
        x < self.width && self.dark.get(y * self.width + x).copied().unwrap_or(false)
    }

    /// With the quiet zone; coordinates from its corner.
    fn is_dark_framed(&self, x: usize, y: usize) -> bool {
        x >= QUIET && y >= QUIET && self.is_dark(x - QUIET, y - QUIET)
    }

    fn framed_width(&self) -> usize {
        self.width + 2 * QUIET
    }

    /// Two modules in a character, one above the other, in black on white whatever the terminal's colours are.
    pub(super) fn terminal(&self) -> Zeroizing<String> {
        let width = self.framed_width();
        let mut out = Zeroizing::new(String::with_capacity(width * width * 2));
        for y in (0..width).step_by(2) {
            out.push_str("\x1b[38;5;16;48;5;231m");
            for x in 0..width {
                out.push(match (self.is_dark_framed(x, y), self.is_dark_framed(x, y + 1)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            out.push_str("\x1b[0m\n");
        }
        out
    }

    /// Greyscale, 8 bits, with a title in a text chunk.
    pub(super) fn png(&self, title: &str) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
        let side = self.framed_width() * SCALE;
        let shade = |at: usize| !self.is_dark_framed(at % side / SCALE, at / side / SCALE);
        let pixels: Zeroizing<Vec<u8>> =
            Zeroizing::new((0..side * side).map(|at| if shade(at) { 255 } else { 0 }).collect());
        let failed = |_| ServiceError::Share("no PNG can be made of it");
        let mut out = Zeroizing::new(Vec::with_capacity(64 << 10));
        let pixels_wide = u32::try_from(side).map_err(|_| ServiceError::Share("no PNG can be made of it"))?;
        let mut encoder = png::Encoder::new(&mut *out, pixels_wide, pixels_wide);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.add_text_chunk("Title".to_owned(), title.to_owned()).map_err(failed)?;
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(out)
    }
}

/// The text of the one QR code in a picture.
///
/// # Errors
/// [`ServiceError::Share`] if there is none, several, or one that can't be read.
pub(super) fn read_png(content: &[u8]) -> Result<Zeroizing<String>, ServiceError> {
    let (width, height, grey) = grey_pixels(content).ok_or(ServiceError::Share("the PNG can't be read"))?;
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| grey[y * width + x]);
    let grids = image.detect_grids();
    let [grid] = grids.as_slice() else {
        return Err(ServiceError::Share(
            "the picture does not show exactly one QR code; scan it with a telephone, or type the words",
        ));
    };
    let unreadable = |_| {
        ServiceError::Share("the QR code in the picture can't be read; take a sharper one, or type the words")
    };
    grid.decode().map(|(_, text)| Zeroizing::new(text)).map_err(unreadable)
}

fn grey_pixels(content: &[u8]) -> Option<(usize, usize, Zeroizing<Vec<u8>>)> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(content));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().ok()?;
    let (wide, high) = (reader.info().width, reader.info().height);
    if wide == 0 || high == 0 || wide > SIDE_MAX || high > SIDE_MAX {
        return None;
    }
    let mut pixels = Zeroizing::new(vec![0; reader.output_buffer_size()?]);
    let frame = reader.next_frame(&mut pixels).ok()?;
    let channels = frame.color_type.samples();
    let grey = |pixel: &[u8]| match *pixel {
        [grey] | [grey, _] => grey,
        // A third each is near enough: it is black or white.
        [red, green, blue, ..] => {
            u8::try_from((u16::from(red) + u16::from(green) + u16::from(blue)) / 3).unwrap_or(u8::MAX)
        }
        [] => 0,
    };
    let (width, height) = (usize::try_from(wide).ok()?, usize::try_from(high).ok()?);
    let grey: Vec<u8> = pixels.chunks_exact(channels).take(width * height).map(grey).collect();
    (grey.len() == width * height).then(|| (width, height, Zeroizing::new(grey)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::share::tests::example;

    #[test]
    fn the_terminals_code_fits_and_reads_as_the_line() {
        let share = example();
        let shown = Code::of(&share).unwrap().terminal();
        let rows: Vec<Vec<char>> = shown
            .lines()
            .map(|line| {
                line.trim_start_matches("\x1b[38;5;16;48;5;231m")
                    .trim_end_matches("\x1b[0m")
                    .chars()
                    .collect()
            })
            .collect();
        let width = rows[0].len();
        assert!(width <= 70, "{width} columns");
        let dark = |x: usize, y: usize| match rows[y / 2][x] {
            '█' => true,
            '▀' => y.is_multiple_of(2),
            '▄' => !y.is_multiple_of(2),
            _ => false,
        };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(4 * width, 4 * width, |x, y| {
            if dark(x / 4, y / 4) { 0 } else { 255 }
        });
        let text = image.detect_grids()[0].decode().unwrap().1;
        assert_eq!(text, share.to_line().to_uppercase());
    }

    #[test]
    fn a_stain_on_the_code_does_no_harm() {
        let share = example();
        let mut code = Code::of(&share).unwrap();
        let (width, from) = (code.width, code.width / 2);
        for at in 0..80 {
            code.dark[(from + at / 10) * width + from + at % 10] = true;
        }
        let read = read_png(&code.png("stained").unwrap()).unwrap();
        assert_eq!(*Share::parse(&read).unwrap().to_line(), *share.to_line());
    }
}
