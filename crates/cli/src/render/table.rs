//! Tables without lines: columns two spaces apart, as wide as the terminal at most.

use crate::output::Look;
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table};

/// How a column behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Wraps when there is no room.
    Text,
    /// Never wraps: a hash cut in two is no use.
    Whole,
    /// Never wraps, and stands on the right.
    Number,
}

/// A table with these columns. All of it is indented by two spaces.
pub(crate) fn table(look: Look, columns: &[(&str, Column)]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(look.width)
        .force_no_tty();
    if look.colour {
        table.enforce_styling();
    }
    let heading = |&(title, column): &(&str, Column)| {
        let cell = cell(title);
        let cell = if look.colour { cell.add_attribute(Attribute::Bold) } else { cell };
        match column {
            Column::Number => cell.set_alignment(CellAlignment::Right),
            Column::Text | Column::Whole => cell,
        }
    };
    table.set_header(columns.iter().map(heading).collect::<Vec<_>>());
    for (at, (_, kind)) in columns.iter().enumerate() {
        let column = table.column_mut(at).expect("invariant: the header made the columns");
        column.set_padding(if at == 0 { (2, 2) } else { (0, 2) });
        if *kind != Column::Text {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if *kind == Column::Number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A cell.
pub(crate) fn cell(text: impl ToString) -> Cell {
    Cell::new(text)
}

/// The table as lines.
pub(crate) fn lines(table: &Table) -> String {
    table.trim_fmt() + "\n"
}
