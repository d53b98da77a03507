import { posix } from 'node:path';
import { CliError } from '../errors.ts';

// Pure: where what is copied ends up, by the rules of `docker cp` (and of cp -a), whichever side is
// far away. Paths are those of the side that they are of, `/` between their parts.

export type Kind = 'file' | 'directory' | 'missing';

export interface Landing {
  /** The directory that is unpacked into; it is there already, but for `make`. */
  readonly directory: string;
  /** What the source is called there; null: what is in it comes without it. */
  readonly name: string | null;
  /** The directory is to be made first. */
  readonly make: boolean;
}

/** `dir/.`: what is in the directory, not the directory. */
export const wantsContents = (path: string) => /(^|\/)\.$/.test(path) || path === '/';

/** Where a source goes to; throws when the two do not fit. */
export function planCopy(
  source: { readonly path: string; readonly kind: 'file' | 'directory' },
  target: { readonly path: string; readonly kind: Kind },
): Landing {
  const whole = posix.normalize(target.path).replace(/(.)\/$/, '$1');
  const beside = { directory: posix.dirname(whole), name: posix.basename(whole), make: false };
  const contents = source.kind === 'directory' && wantsContents(source.path);
  switch (target.kind) {
    case 'directory': {
      const name = contents ? null : posix.basename(posix.normalize(source.path));
      return { directory: whole, name, make: false };
    }
    case 'file':
      if (source.kind === 'directory')
        throw refused(`${target.path} is a file: a directory does not fit over it`);
      return beside;
    case 'missing':
      if (source.kind === 'directory')
        return contents ? { directory: whole, name: null, make: true } : beside;
      if (/\/\.?$/.test(target.path))
        throw refused(
          `there is no directory ${target.path}`,
          'Make it first, or leave out the slash.',
        );
      return beside;
  }
}

function refused(message: string, hint?: string): CliError {
  return new CliError('INVALID', message, hint === undefined ? {} : { hint });
}

/** What an entry of the archive is called where it lands; null: it is none of the source's. */
export function landingPath(entry: string, root: string, name: string | null): string | null {
  const path = entry.replace(/^(\.\/)+/, '').replace(/\/+$/, '');
  const below =
    root === '.'
      ? path
      : path === root
        ? ''
        : path.startsWith(`${root}/`)
          ? path.slice(root.length + 1)
          : null;
  if (below === null) return null;
  return (
    [name, below].filter((part) => part !== null && part !== '' && part !== '.').join('/') || '.'
  );
}

export interface Far {
  readonly instance: string;
  readonly path: string;
}

/** `INSTANCE:PATH`; null for a path of this machine, as one with a `/` before its colon is. */
export function parseFar(text: string): Far | null {
  const match = /^([^/:.]+):(.*)$/s.exec(text);
  if (!match) return null;
  const [, instance = '', path = ''] = match;
  return { instance, path: path.startsWith('/') ? path : `/${path}` };
}
