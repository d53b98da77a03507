import { styleText } from 'node:util';

type Format = Parameters<typeof styleText>[0];

/** Colours for one stream; every function returns its text unchanged when colour is off. */
export interface Style {
  readonly enabled: boolean;
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  bad(text: string): string;
  warn(text: string): string;
  /** Steady colour per name, to tell instances apart in a log. */
  named(name: string, text: string): string;
}

const palette = [
  'cyan',
  'magenta',
  'blue',
  'yellow',
  'green',
  'cyanBright',
  'magentaBright',
  'blueBright',
] as const;

export function createStyle(enabled: boolean): Style {
  // Our own decision, not styleText's: Node 20 has no stream validation and 24 would look at stdout.
  const paint = (format: Format, text: string) =>
    enabled ? styleText(format, text, { validateStream: false }) : text;
  return {
    enabled,
    bold: (text) => paint('bold', text),
    dim: (text) => paint('dim', text),
    good: (text) => paint('green', text),
    bad: (text) => paint('red', text),
    warn: (text) => paint('yellow', text),
    named: (name, text) => {
      let sum = 0;
      for (const char of name) sum = (sum * 31 + (char.codePointAt(0) ?? 0)) >>> 0;
      return paint(palette[sum % palette.length] ?? 'cyan', text);
    },
  };
}

/** https://no-color.org and https://force-color.org: set and not empty counts. */
export function wantsColour(env: NodeJS.ProcessEnv, isTTY: boolean): boolean {
  if (env['NO_COLOR']) return false;
  if (env['FORCE_COLOR'] && env['FORCE_COLOR'] !== '0') return true;
  return isTTY && env['TERM'] !== 'dumb';
}
