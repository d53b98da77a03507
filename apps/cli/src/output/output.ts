import { createStyle, wantsColour, type Style } from './style.ts';
import { fields, table, type Column } from './table.ts';

export interface Streams {
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  readonly stdin: NodeJS.ReadStream;
}

/**
 * What a command says. Results go to stdout; progress, warnings and errors to stderr, so that a
 * pipe carries results only. With `--json` stdout is JSON and nothing else, and stderr is silent
 * but for the error.
 */
export class Output {
  readonly json: boolean;
  readonly streams: Streams;
  /** For stdout. */
  readonly style: Style;
  /** For stderr. */
  readonly noteStyle: Style;

  constructor(streams: Streams, env: NodeJS.ProcessEnv, json: boolean) {
    this.streams = streams;
    this.json = json;
    this.style = createStyle(!json && wantsColour(env, streams.stdout.isTTY));
    this.noteStyle = createStyle(!json && wantsColour(env, streams.stderr.isTTY));
  }

  /** The terminal's width; null when stdout is not one, and then nothing is cut. */
  get columns(): number | null {
    return this.streams.stdout.isTTY ? this.streams.stdout.columns || 80 : null;
  }

  now(): Date {
    return new Date();
  }

  /** A line for people on stdout. Silent with --json. */
  line(text = ''): void {
    if (!this.json) this.streams.stdout.write(`${text}\n`);
  }

  /** A line about what is going on, on stderr. Silent with --json. */
  note(text: string): void {
    if (!this.json) this.streams.stderr.write(`${text}\n`);
  }

  /** Something the person should know though the command goes on. */
  warn(text: string): void {
    if (!this.json) this.streams.stderr.write(`${this.noteStyle.warn('warning:')} ${text}\n`);
  }

  /** The result for scripts: one document, indented. Silent without --json. */
  data(value: unknown): void {
    if (this.json) this.streams.stdout.write(`${toJson(value, 2)}\n`);
  }

  /** One element of a stream for scripts: one line. Silent without --json. */
  record(value: unknown): void {
    if (this.json) this.streams.stdout.write(`${toJson(value)}\n`);
  }

  /** A list: an array for scripts, a table for people, `empty` when there is nothing. */
  list<Row>(rows: readonly Row[], columns: readonly Column<Row>[], empty: string): void {
    if (this.json) this.data(rows);
    else if (rows.length === 0) this.note(empty);
    else this.table(rows, columns);
  }

  /** A table for people. */
  table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    for (const line of table(rows, columns, this.columns, (title) => this.style.dim(title)))
      this.line(line);
  }

  /** `Name: value` lines for people. */
  fields(pairs: readonly (readonly [string, string])[]): void {
    for (const line of fields(pairs, (name) => this.style.dim(name))) this.line(line);
  }
}

/** JSON that is harmless on a terminal: C1 control characters and DEL are escaped too. */
export function toJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
