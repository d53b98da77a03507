import { InvalidArgumentError } from 'commander';

/** MiB in `512`, `512m`, `2g`, `1.5GiB`. */
export function parseMiB(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(m|mb|mib|g|gb|gib)?$/i.exec(text);
  const value = Number(match?.[1]) * (match?.[2]?.toLowerCase().startsWith('g') ? 1024 : 1);
  if (!match || !Number.isInteger(value) || value < 1 || value > 2 ** 31 - 1)
    throw new InvalidArgumentError('Write 512m or 2g.');
  return value;
}

/** Thousandths of a core in `500m`, `0.5`, `2`. */
export function parseMillis(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(m)?$/i.exec(text);
  const value = Math.round(Number(match?.[1]) * (match?.[2] === undefined ? 1000 : 1));
  if (!match || value < 1 || value > 2 ** 31 - 1)
    throw new InvalidArgumentError('Write 500m, 0.5 or 2.');
  return value;
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `1.5 MiB`; three digits are enough to read. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit] ?? ''}`;
}
