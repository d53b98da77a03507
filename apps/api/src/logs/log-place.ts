/**
 * A place in the logs, as clients hold it: which making of the stream, which batch of it, which
 * line of the batch. As text, places sort by the order of arrival, also from one stream to the one
 * that was made after it was lost.
 */
import { invalid } from '@bulkhead/protocol';

export interface LogPlace {
  /** When the stream was made, milliseconds since 1970: sequences of another stream mean nothing. */
  readonly made: number;
  readonly sequence: number;
  readonly line: number;
}

const widths = { made: 9, sequence: 11, line: 4 } as const;
/** Behind every line of a batch. */
export const pastLines = 36 ** widths.line - 1;

const digits = (value: number, width: number) => value.toString(36).padStart(width, '0');

export function writePlace({ made, sequence, line }: LogPlace): string {
  return digits(made, widths.made) + digits(sequence, widths.sequence) + digits(line, widths.line);
}

/** @throws DomainError INVALID for what `writePlace` never wrote. */
export function readPlace(text: string): LogPlace {
  const match = /^([0-9a-z]{9})([0-9a-z]{11})([0-9a-z]{4})$/.exec(text);
  const [made, sequence, line] = (match?.slice(1) ?? []).map((part) => Number.parseInt(part, 36));
  if (made === undefined || line === undefined || !Number.isSafeInteger(sequence))
    throw invalid('`after` must be the cursor of a log line, or the end of a page of them');
  return { made, sequence: sequence ?? 0, line };
}
