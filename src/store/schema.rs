//! The tables as redb knows them. Keys are the bytes of [`Key`](super::Key), values are sealed records, so
//! the file's own schema is the same for all tables.

use redb::TableDefinition;

use super::Table;

type Records = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Version of the layout, the content of the format record.
pub(super) const FORMAT: [u8; 4] = 1_u32.to_le_bytes();
/// The table of the format record alone.
pub(super) const FORMAT_TABLE: Records = TableDefinition::new("format");
/// Its key there, and, in [`Table::Meta`], the place that it is sealed to.
pub(super) const FORMAT_KEY: [u8; 6] = *b"format";

/// redb's name for the table.
pub(super) fn definition(table: Table) -> Records {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Keys => "keys",
        Table::Membership => "membership",
        Table::Epochs => "epochs",
        Table::Log => "log",
        Table::Bodies => "bodies",
        Table::Documents => "documents",
        Table::Addresses => "addresses",
        Table::Events => "events",
    })
}
