import { describe, expect, it } from 'vitest';
import { landingPath, parseFar, planCopy } from './copy-plan.ts';

describe('where a copy lands', () => {
  const file = { path: '/src/notes.txt', kind: 'file' } as const;
  const directory = { path: '/src/public', kind: 'directory' } as const;
  const contents = { path: '/src/public/.', kind: 'directory' } as const;

  it.each([
    // As the table in docker's reference of cp has it.
    [file, '/to/new', 'missing', { directory: '/to', name: 'new', make: false }],
    [file, '/to/old', 'file', { directory: '/to', name: 'old', make: false }],
    [file, '/to', 'directory', { directory: '/to', name: 'notes.txt', make: false }],
    [file, '/to/', 'directory', { directory: '/to', name: 'notes.txt', make: false }],
    [directory, '/to/new', 'missing', { directory: '/to', name: 'new', make: false }],
    [directory, '/to/new/', 'missing', { directory: '/to', name: 'new', make: false }],
    [directory, '/to', 'directory', { directory: '/to', name: 'public', make: false }],
    [contents, '/to/new', 'missing', { directory: '/to/new', name: null, make: true }],
    [contents, '/to', 'directory', { directory: '/to', name: null, make: false }],
    [
      { path: '/', kind: 'directory' },
      '/to',
      'directory',
      { directory: '/to', name: null, make: false },
    ],
    [file, 'new', 'missing', { directory: '.', name: 'new', make: false }],
  ] as const)('%j to %s, which is %s', (source, path, kind, landing) => {
    expect(planCopy(source, { path, kind })).toEqual(landing);
  });

  it.each([
    [file, '/to/new/', 'missing', /no directory/],
    [directory, '/to/old', 'file', /is a file/],
    [contents, '/to/old', 'file', /is a file/],
  ] as const)('%j does not fit to %s, which is %s', (source, path, kind, message) => {
    expect(() => planCopy(source, { path, kind })).toThrow(message);
  });
});

it.each([
  ['public/', 'public', 'new', 'new'],
  ['public/a/b', 'public', 'new', 'new/a/b'],
  ['./public/a', 'public', null, 'a'],
  ['public', 'public', null, '.'],
  ['./etc/x', '.', 'root', 'root/etc/x'],
  ['./', '.', null, '.'],
  ['publicity/a', 'public', 'new', null],
  ['/etc/passwd', 'public', 'new', null],
])('%s of %s as %s is %s', (entry, root, name, path) => {
  expect(landingPath(entry, root, name)).toBe(path);
});

it.each([
  ['i3k9:/data', { instance: 'i3k9', path: '/data' }],
  ['i3k9:data', { instance: 'i3k9', path: '/data' }],
  ['i3k9:', { instance: 'i3k9', path: '/' }],
  ['i3k9:/a:b', { instance: 'i3k9', path: '/a:b' }],
  ['./i3k9:data', null],
  ['/tmp/a:b', null],
  ['notes.txt', null],
  ['-', null],
])('%s', (text, far) => {
  expect(parseFar(text)).toEqual(far);
});
