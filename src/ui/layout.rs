//! Where things stand in the window: the shared screen above, one status row below, panes and cards over the
//! screen.

use ratatui::layout::Rect;

use crate::engine::terminal::screen::clamp_size;

/// The size of a window in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// Rows that the status bar takes from the window.
const STATUS_ROWS: u16 = 1;

/// Windows narrower than this have panes below instead of beside the screen.
const PANE_BESIDE_COLS_MIN: u16 = 90;

impl Size {
    /// The size that a shell gets in this window: all but the status row, within what can be shared.
    #[must_use]
    pub fn of_shell(self) -> Self {
        let (cols, rows) = clamp_size(self.cols, self.rows.saturating_sub(STATUS_ROWS));
        Self { cols, rows }
    }

    /// Where the shared screen goes.
    pub(super) fn screen(self) -> Rect {
        Rect::new(0, 0, self.cols, self.rows.saturating_sub(STATUS_ROWS))
    }

    /// Where the status row goes.
    pub(super) fn status(self) -> Rect {
        let top = self.rows.saturating_sub(STATUS_ROWS);
        Rect::new(0, top, self.cols, self.rows.min(STATUS_ROWS))
    }

    /// Where a pane beside the screen goes, or below it in narrow windows.
    pub(super) fn pane(self) -> Rect {
        let screen = self.screen();
        if self.cols >= PANE_BESIDE_COLS_MIN {
            let width = (self.cols / 5).saturating_mul(2).clamp(40, 60);
            Rect {
                x: self.cols.saturating_sub(width),
                width,
                ..screen
            }
        } else {
            let height = (screen.height / 2).max(8).min(screen.height);
            Rect {
                y: screen.height.saturating_sub(height),
                height,
                ..screen
            }
        }
    }

    /// A place in the middle for so much, or what there is.
    pub(super) fn middle(self, width: u16, height: u16) -> Rect {
        let screen = self.screen();
        let (width, height) = (width.min(screen.width), height.min(screen.height));
        Rect {
            x: screen.width.saturating_sub(width) / 2,
            y: screen.height.saturating_sub(height) / 2,
            width,
            height,
        }
    }

    /// A place in the upper right corner, or below it where the cursor's row would be hidden.
    pub(super) fn corner(self, width: u16, height: u16, cursor_row: u16) -> Rect {
        let screen = self.screen();
        let (width, height) = (width.min(screen.width), height.min(screen.height));
        let low = screen.height.saturating_sub(height);
        let y = if cursor_row < height && cursor_row < low {
            low
        } else {
            0
        };
        Rect {
            x: screen.width.saturating_sub(width),
            y,
            width,
            height,
        }
    }

    /// A place across the whole width in the half where the cursor is not.
    pub(super) fn across(self, height: u16, cursor_row: u16) -> Rect {
        let screen = self.screen();
        let height = height.min(screen.height);
        let low = screen.height.saturating_sub(height);
        let y = if cursor_row < low { low } else { 0 };
        Rect {
            y,
            height,
            ..screen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_gets_all_but_the_status_row() {
        assert_eq!(
            Size { cols: 80, rows: 25 }.of_shell(),
            Size { cols: 80, rows: 24 }
        );
        assert_eq!(
            Size { cols: 3, rows: 1 }.of_shell(),
            Size { cols: 10, rows: 2 }
        );
        assert_eq!(
            Size {
                cols: 9_999,
                rows: 9_999
            }
            .of_shell(),
            Size {
                cols: 500,
                rows: 300
            }
        );
    }

    #[test]
    fn every_place_lies_above_the_status_row() {
        for (cols, rows) in [(0, 0), (1, 1), (10, 2), (40, 12), (80, 25), (300, 100)] {
            let size = Size { cols, rows };
            for place in [
                size.pane(),
                size.middle(76, 20),
                size.corner(50, 6, 0),
                size.across(9, 0),
            ] {
                assert!(
                    place.right() <= cols && place.bottom() <= size.screen().bottom(),
                    "{place:?}"
                );
            }
        }
    }

    #[test]
    fn cards_leave_the_row_of_the_cursor_in_sight() {
        let size = Size { cols: 80, rows: 25 };
        assert_eq!(size.corner(40, 5, 2).y, 19);
        assert_eq!(size.corner(40, 5, 12).y, 0);
        assert_eq!(size.across(9, 3).y, 15);
        assert_eq!(size.across(9, 20).y, 0);
    }
}
