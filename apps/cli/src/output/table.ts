import { fit, pad, width } from './text.ts';

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly align?: 'left' | 'right';
  /** Colours the padded cell. */
  readonly style?: (cell: string, row: Row) => string;
  /** May be cut when the terminal is narrow; without it the column keeps its width. */
  readonly shrink?: boolean;
}

const gap = 2;

/**
 * Lines of an aligned table. `columns` is the terminal's width, or null when nobody looks: then
 * nothing is cut, so that what a script reads through a pipe is whole.
 */
export function table<Row>(
  rows: readonly Row[],
  spec: readonly Column<Row>[],
  columns: number | null,
  styleTitle: (title: string) => string = (title) => title,
): string[] {
  const cells = rows.map((row) => spec.map((column) => column.value(row)));
  const widths = spec.map((column, i) =>
    Math.max(width(column.title), ...cells.map((line) => width(line[i] ?? ''))),
  );
  if (columns !== null) shrinkTo(widths, spec, columns);
  const draw = (line: readonly string[], paint: (cell: string, i: number) => string) =>
    line
      .map((cell, i) => {
        const last = i === spec.length - 1;
        const size = widths[i] ?? 0;
        const cut = fit(cell, size);
        const padded = last && spec[i]?.align !== 'right' ? cut : pad(cut, size, spec[i]?.align);
        return paint(padded, i);
      })
      .join(' '.repeat(gap))
      .trimEnd();
  return [
    draw(
      spec.map((column) => column.title),
      (cell) => styleTitle(cell),
    ),
    ...rows.map((row, r) => draw(cells[r] ?? [], (cell, i) => spec[i]?.style?.(cell, row) ?? cell)),
  ];
}

/** Takes the missing width from the widest columns that may be cut, one column at a time. */
function shrinkTo<Row>(widths: number[], spec: readonly Column<Row>[], columns: number): void {
  const total = () => widths.reduce((sum, size) => sum + size, 0) + gap * (widths.length - 1);
  const least = 8;
  while (total() > columns) {
    let widest = -1;
    for (const [i, column] of spec.entries()) {
      const size = widths[i] ?? 0;
      if (column.shrink && size > least && (widest < 0 || size > (widths[widest] ?? 0))) widest = i;
    }
    if (widest < 0) return;
    widths[widest] = (widths[widest] ?? 0) - 1;
  }
}

/** `Name:   value` lines, values aligned. */
export function fields(
  pairs: readonly (readonly [string, string])[],
  styleName: (name: string) => string = (name) => name,
): string[] {
  const size = Math.max(...pairs.map(([name]) => width(name))) + 1;
  return pairs.map(([name, value]) => `${styleName(pad(`${name}:`, size))}  ${value}`.trimEnd());
}
