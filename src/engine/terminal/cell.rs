//! Cells and lines: what stands where, in which style. A [`Line`] is canonical: the same picture has one form
//! and one hash, and its text holds nothing that a terminal would obey. The host repairs what its emulator
//! says ([`Line::cleaned`]); a viewer refuses what a frame says ([`Line::checked`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::ids::Hash;
use crate::engine::limits::CELL_CLUSTER_BYTES_MAX;

/// A colour as the program named it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Color {
    /// The viewer's own foreground or background; for an underline the colour of the text.
    #[default]
    Default,
    /// An entry of the 256-colour palette of xterm, 0 to 15 as the viewer's theme has them.
    Palette(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// The shape of an underline.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Underline {
    /// None.
    #[default]
    None,
    /// One straight line.
    Single,
    /// Two lines.
    Double,
    /// A wave.
    Curly,
    /// Dots.
    Dotted,
    /// Dashes.
    Dashed,
}

/// A set of text attributes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Attrs(u8);

impl Attrs {
    /// Heavier strokes.
    pub const BOLD: Self = Self(1);
    /// Fainter colour.
    pub const DIM: Self = Self(2);
    /// Slanted.
    pub const ITALIC: Self = Self(4);
    /// Foreground and background change places.
    pub const INVERSE: Self = Self(8);
    /// Present but not visible.
    pub const HIDDEN: Self = Self(16);
    /// Struck through.
    pub const STRIKE: Self = Self(32);

    const ALL: u8 = 63;

    const NAMES: [(Self, &'static str); 6] = [
        (Self::BOLD, "bold"),
        (Self::DIM, "dim"),
        (Self::ITALIC, "italic"),
        (Self::INVERSE, "inverse"),
        (Self::HIDDEN, "hidden"),
        (Self::STRIKE, "strike"),
    ];

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With those of `other` too, if `on`.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }

    /// The names of those set, as `screen --json` has them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(one, _)| self.contains(*one))
            .map(|(_, name)| name)
    }

    /// Whether no bit is set that this version does not know.
    pub(super) const fn is_known(self) -> bool {
        self.0 & !Self::ALL == 0
    }

    /// The set as bits, for hashing.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }
}

/// How a cell looks apart from its text.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Style {
    /// Colour of the text.
    pub fg: Color,
    /// Colour behind it.
    pub bg: Color,
    /// Bold and the like.
    pub attrs: Attrs,
    /// Shape of the underline.
    pub underline: Underline,
    /// Colour of the underline.
    pub underline_color: Color,
}

/// What stands in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Glyph {
    /// A character one column wide.
    Narrow(char),
    /// A character two columns wide; a [`Glyph::Spacer`] follows.
    Wide(char),
    /// The second column of what stands left of it.
    Spacer,
    /// A character with marks upon it.
    Cluster(Arc<Cluster>),
}

/// Several characters that share one cell, or two if wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Whether it takes two columns.
    pub wide: bool,
    /// The characters, base first.
    pub text: Box<str>,
}

/// One column of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Its text.
    pub glyph: Glyph,
    /// Its look. A spacer has that of its head.
    pub style: Style,
}

impl Cell {
    /// A space without colours.
    pub const BLANK: Self = Self::space(Style {
        fg: Color::Default,
        bg: Color::Default,
        attrs: Attrs(0),
        underline: Underline::None,
        underline_color: Color::Default,
    });

    /// A space in a style.
    pub const fn space(style: Style) -> Self {
        Self {
            glyph: Glyph::Narrow(' '),
            style,
        }
    }

    /// A cell of a base character and its marks, as an emulator has them; not yet cleaned.
    pub fn new(base: char, marks: &[char], wide: bool, style: Style) -> Self {
        let glyph = match (marks, wide) {
            ([], false) => Glyph::Narrow(base),
            ([], true) => Glyph::Wide(base),
            (marks, wide) => {
                let text: String = std::iter::once(base).chain(marks.iter().copied()).collect();
                Glyph::Cluster(Arc::new(Cluster {
                    wide,
                    text: text.into(),
                }))
            }
        };
        Self { glyph, style }
    }

    /// Whether it takes two columns.
    pub fn is_wide(&self) -> bool {
        match &self.glyph {
            Glyph::Wide(_) => true,
            Glyph::Cluster(cluster) => cluster.wide,
            Glyph::Narrow(_) | Glyph::Spacer => false,
        }
    }

    /// Whether it is the second column of another.
    pub fn is_spacer(&self) -> bool {
        matches!(self.glyph, Glyph::Spacer)
    }

    /// Whether it is a space, whatever its style.
    pub fn is_space(&self) -> bool {
        matches!(self.glyph, Glyph::Narrow(' '))
    }

    /// Adds its text; a spacer has none.
    pub fn push_text(&self, text: &mut String) {
        match &self.glyph {
            Glyph::Narrow(char) | Glyph::Wide(char) => text.push(*char),
            Glyph::Cluster(cluster) => text.push_str(&cluster.text),
            Glyph::Spacer => {}
        }
    }

    fn clean(&mut self) {
        let wide = self.is_wide();
        match &self.glyph {
            Glyph::Narrow(' '..='~') | Glyph::Spacer => {}
            Glyph::Narrow(char) | Glyph::Wide(char) => {
                if !is_base(*char) {
                    self.glyph = Glyph::Narrow(' ');
                }
            }
            Glyph::Cluster(cluster) => self.glyph = cleaned_cluster(&cluster.text, wide),
        }
    }

    fn is_clean(&self) -> bool {
        match &self.glyph {
            Glyph::Narrow(char) | Glyph::Wide(char) => is_base(*char),
            Glyph::Cluster(cluster) => is_clean_cluster(&cluster.text),
            Glyph::Spacer => true,
        }
    }
}

static BLANK: Cell = Cell::BLANK;

/// Why cells make no canonical line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Text that a terminal might obey, or a pile of marks beyond the limit.
    #[error("a cell holds text that is not inert")]
    Text,
    /// Half of a wide character.
    #[error("a wide character lacks its second column, or a second column its character")]
    Halves,
    /// A spacer that looks otherwise than its head.
    #[error("the second column of a wide character has another style")]
    SpacerStyle,
    /// Blank cells that the canonical form leaves out.
    #[error("blank cells end the line")]
    TrailingBlank,
    /// More cells than columns.
    #[error("the line is wider than the screen")]
    TooWide,
}

/// A row's content in canonical form: clean cells without trailing blanks, and whether the text goes on below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    cells: Vec<Cell>,
    wrapped: bool,
    hash: Hash,
}

impl Line {
    /// Repairs what an emulator says: control, bidi and other obeyed characters and halves of wide ones become
    /// blanks, tabs become spaces, piles of marks are cut, columns beyond `cols` are dropped.
    pub fn cleaned(mut cells: Vec<Cell>, wrapped: bool, cols: u16) -> Self {
        clean_cells(&mut cells, cols);
        Self::of(cells, wrapped)
    }

    /// Takes cells that must be canonical already.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn checked(cells: Vec<Cell>, wrapped: bool, cols: u16) -> Result<Self, LineError> {
        check_cells(&cells)?;
        if cells.len() > usize::from(cols) {
            return Err(LineError::TooWide);
        }
        if cells.last() == Some(&Cell::BLANK) {
            return Err(LineError::TrailingBlank);
        }
        Ok(Self::of(cells, wrapped))
    }

    fn of(cells: Vec<Cell>, wrapped: bool) -> Self {
        let hash = content_hash(&cells, wrapped);
        Self {
            cells,
            wrapped,
            hash,
        }
    }

    /// The cells from the left; columns beyond the last are [`Cell::BLANK`].
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The cell of a column.
    pub fn cell(&self, column: usize) -> &Cell {
        self.cells.get(column).unwrap_or(&BLANK)
    }

    /// Whether the text goes on in the row below.
    pub fn wrapped(&self) -> bool {
        self.wrapped
    }

    /// The hash of all that the line says.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Whether nothing is to be seen.
    pub fn is_blank(&self) -> bool {
        self.cells.is_empty()
    }

    /// The text without wide characters' second columns and without blanks at the end.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.cells.len());
        self.cells.iter().for_each(|cell| cell.push_text(&mut text));
        text.truncate(text.trim_end_matches(' ').len());
        text
    }

    /// Whether it says the same as these cleaned cells.
    pub(super) fn says(&self, cells: &[Cell], wrapped: bool) -> bool {
        self.wrapped == wrapped && self.cells == cells
    }
}

/// Brings an emulator's cells into canonical form.
pub(super) fn clean_cells(cells: &mut Vec<Cell>, cols: u16) {
    cells.truncate(usize::from(cols));
    cells.iter_mut().for_each(Cell::clean);
    pair_halves(cells);
    while cells.last() == Some(&Cell::BLANK) {
        cells.pop();
    }
}

/// Checks the rules of clean cells that need no knowledge of the line's end.
pub(super) fn check_cells(cells: &[Cell]) -> Result<(), LineError> {
    let mut head: Option<&Cell> = None;
    for cell in cells {
        if !cell.is_clean() {
            return Err(LineError::Text);
        }
        match (head.take(), cell.is_spacer()) {
            (Some(head), true) if head.style != cell.style => return Err(LineError::SpacerStyle),
            (Some(_), true) => {}
            (Some(_), false) | (None, true) => return Err(LineError::Halves),
            (None, false) => head = cell.is_wide().then_some(cell),
        }
    }
    head.map_or(Ok(()), |_| Err(LineError::Halves))
}

/// Makes blanks of wide characters without a second column and of second columns without a character.
fn pair_halves(cells: &mut [Cell]) {
    let mut head: Option<&mut Cell> = None;
    for cell in cells {
        match head.take() {
            Some(head) if cell.is_spacer() => {
                cell.style = head.style;
                continue;
            }
            Some(head) => head.glyph = Glyph::Narrow(' '),
            None => {}
        }
        if cell.is_spacer() {
            cell.glyph = Glyph::Narrow(' ');
        } else if cell.is_wide() {
            head = Some(cell);
        }
    }
    if let Some(head) = head {
        head.glyph = Glyph::Narrow(' ');
    }
}

fn cleaned_cluster(text: &str, wide: bool) -> Glyph {
    let mut chars = text.chars();
    let Some(base) = chars.next().filter(|char| is_base(*char)) else {
        return Glyph::Narrow(' ');
    };
    let mut kept = String::from(base);
    for mark in chars.filter(|char| is_inert(*char)) {
        if kept.len() + mark.len_utf8() > CELL_CLUSTER_BYTES_MAX {
            break;
        }
        kept.push(mark);
    }
    match (kept.len() > base.len_utf8(), wide) {
        (true, wide) => Glyph::Cluster(Arc::new(Cluster {
            wide,
            text: kept.into(),
        })),
        (false, true) => Glyph::Wide(base),
        (false, false) => Glyph::Narrow(base),
    }
}

fn is_clean_cluster(text: &str) -> bool {
    let mut chars = text.chars();
    text.len() <= CELL_CLUSTER_BYTES_MAX
        && chars.next().is_some_and(is_base)
        && chars.clone().next().is_some()
        && chars.all(is_inert)
}

/// Whether a character may stand alone in a cell: inert and visible or a space.
pub(super) fn is_base(char: char) -> bool {
    is_inert(char)
        && !matches!(char,
            '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a terminal only shows a character: no control (C0, C1, DEL), no direction or shaping command, no
/// line separator, no annotation mark, no byte order mark.
pub fn is_inert(char: char) -> bool {
    match char {
        ' '..='~' => true,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => {
            false
        }
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}' => false,
        char => !char.is_control(),
    }
}

/// Text for a person: what is not inert becomes a space, and at most `bytes_max` bytes are kept.
pub fn inert_text(text: &str, bytes_max: usize) -> String {
    let mut clean = String::new();
    for char in text
        .chars()
        .map(|char| if is_inert(char) { char } else { ' ' })
    {
        if clean.len() + char.len_utf8() > bytes_max {
            break;
        }
        clean.push(char);
    }
    clean
}

// The encoding is a prefix code: bytes above 0xf4 never begin a character in UTF-8, so they are free as tags.
const TAG_STYLE: u8 = 0xff;
const TAG_WIDE: u8 = 0xfe;
const TAG_CLUSTER: u8 = 0xfd;
const TAG_WIDE_CLUSTER: u8 = 0xfc;

fn content_hash(cells: &[Cell], wrapped: bool) -> Hash {
    let mut bytes = Vec::with_capacity(cells.len() + 16);
    bytes.push(u8::from(wrapped));
    let mut style = Style::default();
    for cell in cells {
        if cell.style != style {
            style = cell.style;
            push_style(&mut bytes, style);
        }
        push_glyph(&mut bytes, &cell.glyph);
    }
    let mut hasher = blake3::Hasher::new_derive_key("collab-p2p screen line v1");
    Hash(*hasher.update(&bytes).finalize().as_bytes())
}

fn push_style(bytes: &mut Vec<u8>, style: Style) {
    bytes.push(TAG_STYLE);
    for color in [style.fg, style.bg, style.underline_color] {
        bytes.extend(match color {
            Color::Default => [0, 0, 0, 0],
            Color::Palette(index) => [1, index, 0, 0],
            Color::Rgb(red, green, blue) => [2, red, green, blue],
        });
    }
    bytes.push(style.attrs.bits());
    bytes.push(match style.underline {
        Underline::None => 0,
        Underline::Single => 1,
        Underline::Double => 2,
        Underline::Curly => 3,
        Underline::Dotted => 4,
        Underline::Dashed => 5,
    });
}

fn push_glyph(bytes: &mut Vec<u8>, glyph: &Glyph) {
    match glyph {
        Glyph::Narrow(char) => push_char(bytes, *char),
        Glyph::Wide(char) => {
            bytes.push(TAG_WIDE);
            push_char(bytes, *char);
        }
        Glyph::Cluster(cluster) => {
            bytes.push(if cluster.wide {
                TAG_WIDE_CLUSTER
            } else {
                TAG_CLUSTER
            });
            bytes.push(u8::try_from(cluster.text.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(cluster.text.as_bytes());
        }
        Glyph::Spacer => {}
    }
}

fn push_char(bytes: &mut Vec<u8>, char: char) {
    bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> Vec<Cell> {
        text.chars()
            .map(|char| Cell::new(char, &[], false, Style::default()))
            .collect()
    }

    #[test]
    fn a_cell_stays_small() {
        assert!(size_of::<Cell>() <= 32);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_survives_cleaning() {
        let hostile = "a\x1b[\t\u{9b}\u{7f}\u{202e}\u{2066}\u{2028}\u{feff}\u{200b}b";

        let line = Line::cleaned(cells(hostile), false, 80);

        assert_eq!(line.text(), "a [        b");
        assert!(check_cells(line.cells()).is_ok());
    }

    #[test]
    fn marks_are_cut_at_the_limit_and_hostile_ones_left_out() {
        let marks = ['\u{301}', '\x1b', '\u{202e}', '\u{200d}', '\u{302}'];
        let pile = ['\u{301}'; 1000];
        let plain = Style::default();

        let line = Line::cleaned(
            vec![
                Cell::new('e', &marks, false, plain),
                Cell::new('x', &pile, false, plain),
            ],
            false,
            80,
        );

        assert_eq!(
            line.text().chars().take(4).collect::<String>(),
            "e\u{301}\u{200d}\u{302}"
        );
        let Glyph::Cluster(cluster) = &line.cell(1).glyph else {
            panic!("a cluster")
        };
        assert!(cluster.text.len() <= CELL_CLUSTER_BYTES_MAX && cluster.text.len() > 28);
    }

    #[test]
    fn halves_of_wide_characters_become_blanks() {
        let plain = Style::default();
        let wide = Cell::new('漢', &[], true, plain);
        let spacer = Cell {
            glyph: Glyph::Spacer,
            style: Style {
                fg: Color::Palette(1),
                ..plain
            },
        };
        let x = Cell::new('x', &[], false, plain);

        let orphans = vec![
            spacer.clone(),
            wide.clone(),
            x.clone(),
            wide.clone(),
            spacer,
            wide,
            x,
        ];
        let line = Line::cleaned(orphans, false, 6);

        assert_eq!(line.text(), "  x漢");
        assert_eq!(line.cells().len(), 5);
        assert!(check_cells(line.cells()).is_ok());
    }

    #[test]
    fn a_line_that_is_not_canonical_is_refused() {
        let plain = Style::default();
        let wide = Cell::new('漢', &[], true, plain);

        assert_eq!(
            Line::checked(cells("a\x1b"), false, 80),
            Err(LineError::Text)
        );
        assert_eq!(
            Line::checked(cells("a "), false, 80),
            Err(LineError::TrailingBlank)
        );
        assert_eq!(
            Line::checked(cells("aaa"), false, 2),
            Err(LineError::TooWide)
        );
        assert_eq!(
            Line::checked(vec![wide.clone()], false, 80),
            Err(LineError::Halves)
        );
        let red = Style {
            fg: Color::Palette(1),
            ..plain
        };
        let spacer = Cell {
            glyph: Glyph::Spacer,
            style: red,
        };
        assert_eq!(
            Line::checked(vec![wide, spacer], false, 80),
            Err(LineError::SpacerStyle)
        );
    }

    #[test]
    fn lines_that_look_different_have_different_hashes() {
        let plain = Style::default();
        let red = Style {
            fg: Color::Palette(1),
            ..plain
        };
        let spacer = |style| Cell {
            glyph: Glyph::Spacer,
            style,
        };
        let lines = [
            (vec![], false),
            (vec![], true),
            (cells("ab"), false),
            (cells("a"), false),
            (vec![Cell::new('a', &[], false, red)], false),
            (vec![Cell::new('a', &['\u{301}'], false, plain)], false),
            (
                vec![Cell::new('a', &['\u{301}'], true, plain), spacer(plain)],
                false,
            ),
            (vec![Cell::new('a', &[], true, plain), spacer(plain)], false),
            (vec![Cell::new('a', &[], true, red), spacer(red)], false),
        ];

        let hashes: std::collections::BTreeSet<_> = lines
            .iter()
            .map(|(cells, wrapped)| Line::checked(cells.clone(), *wrapped, 80).unwrap().hash())
            .collect();

        assert_eq!(hashes.len(), lines.len());
    }

    #[test]
    fn text_for_people_is_inert_and_short() {
        assert_eq!(inert_text("a\x1b]0;b\x07c\u{202e}", 256), "a ]0;b c ");
        assert_eq!(inert_text("漢字", 5), "漢");
    }
}
