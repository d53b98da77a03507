import { usageError } from '../errors.ts';

const units = [
  ['d', 86_400],
  ['h', 3600],
  ['m', 60],
  ['s', 1],
] as const;

/** `3m`, `2h`, `5d`: the largest whole unit. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [unit, size] of units) {
    if (whole >= size) return `${String(Math.floor(whole / size))}${unit}`;
  }
  return '0s';
}

/** How long something has been going on: `0.8s`, `42s`, `3m 07s`. */
export function elapsed(seconds: number): string {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)}s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${String(whole)}s`;
  return `${String(Math.floor(whole / 60))}m ${String(whole % 60).padStart(2, '0')}s`;
}

/** `3m ago`, `in 2d`, `now`; `-` for null. `at` is an ISO date. */
export function relative(at: string | null, now: Date): string {
  if (at === null) return '-';
  const seconds = (now.getTime() - Date.parse(at)) / 1000;
  if (Number.isNaN(seconds)) return at;
  if (Math.abs(seconds) < 1) return 'now';
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

/** Seconds since midnight are enough to read a log by: `14:03:07`, local time. */
export function clock(at: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return at;
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((part) => String(part).padStart(2, '0'))
    .join(':');
}

const durationPattern = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/;
const factors: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds in `90`, `90s`, `10m`, `2h`, `1d`. Throws a usage error naming the option. */
export function parseDuration(text: string, option: string): number {
  const match = durationPattern.exec(text);
  if (!match)
    throw usageError(`${option}: "${text}" is not a duration`, 'Write 30s, 10m, 2h or 1d.');
  return Number(match[1]) * (factors[match[2] ?? 's'] ?? 1);
}

/** A moment: a duration before `now`, or an ISO date. Returns an ISO date; errors name the option. */
export function parseMoment(text: string, option: string, now: Date): string {
  if (durationPattern.test(text)) {
    return new Date(now.getTime() - parseDuration(text, option) * 1000).toISOString();
  }
  const at = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at)) {
    throw usageError(
      `${option}: "${text}" is neither a duration nor a date`,
      'Write 30s, 10m, 2h, 1d or 2026-01-31T12:00:00Z.',
    );
  }
  return new Date(at).toISOString();
}
