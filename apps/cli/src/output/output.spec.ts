import { describe, expect, it } from 'vitest';
import { toJson } from './output.ts';
import { createStyle, wantsColour } from './style.ts';
import { fields, table } from './table.ts';
import { colouredText, fit, pad, plainText } from './text.ts';
import { duration, elapsed, parseDuration, parseMoment, relative } from './time.ts';

const now = new Date('2026-01-31T12:00:00Z');

describe('text from other people', () => {
  it.each([
    ['\u001b[2J\u001b[Hgone', 'gone'],
    ['\u001b]0;title\u0007text', 'text'],
    ['\u001b]8;;http://evil\u001b\\click\u001b]8;;\u001b\\', 'click'],
    ['\u001bPq#0\u001b\\sixel', 'sixel'],
    ['a\rb', 'ab'],
    ['a\nb', 'a b'],
    ['a\u009b31mb', 'a31mb'],
    ['\u202eevil\u202c', 'evil'],
    ['tab\tstays', 'tab\tstays'],
    ['plain \u001b', 'plain '],
  ])('%j reaches the terminal as %j', (text, plain) => {
    expect(plainText(text)).toBe(plain);
  });

  it('keeps colours of logs, nothing else, and ends them', () => {
    expect(colouredText('\u001b[31mred\u001b[2K')).toBe('\u001b[31mred\u001b[0m');
    expect(colouredText('none\u001b[2J')).toBe('none');
  });

  it('is harmless in JSON too', () => {
    expect(toJson({ text: 'a\u009b2J\u001b\u007f' })).toBe('{"text":"a\\u009b2J\\u001b\\u007f"}');
  });
});

describe('columns', () => {
  it('counts what is shown', () => {
    expect(pad('日本', 6)).toBe('日本  ');
    expect(pad('7', 3, 'right')).toBe('  7');
    expect(fit('abcdef', 4)).toBe('abc…');
    expect(fit('日本語', 4)).toBe('日…');
  });

  it('aligns, and cuts only what may be cut, only for a terminal', () => {
    const rows = [
      { name: 'web', note: 'a long note that does not fit' },
      { name: 'worker', note: '' },
    ];
    const spec = [
      { title: 'NAME', value: (row: (typeof rows)[number]) => row.name },
      { title: 'NOTE', value: (row: (typeof rows)[number]) => row.note, shrink: true },
    ];
    expect(table(rows, spec, null)).toEqual([
      'NAME    NOTE',
      'web     a long note that does not fit',
      'worker',
    ]);
    expect(table(rows, spec, 20)).toEqual(['NAME    NOTE', 'web     a long note…', 'worker']);
  });

  it('aligns fields', () => {
    expect(
      fields([
        ['App', 'hello'],
        ['Address', 'x'],
      ]),
    ).toEqual(['App:      hello', 'Address:  x']);
  });
});

describe('time', () => {
  it('is told in the largest unit', () => {
    expect([0, 59, 60, 7200, 200_000].map(duration)).toEqual(['0s', '59s', '1m', '2h', '2d']);
    expect([0.84, 12.4, 187].map(elapsed)).toEqual(['0.8s', '12s', '3m 07s']);
    expect(relative('2026-01-31T11:57:00Z', now)).toBe('3m ago');
    expect(relative('2026-02-02T12:00:00Z', now)).toBe('in 2d');
    expect(relative(null, now)).toBe('-');
  });

  it('is read as a duration or a date', () => {
    expect(parseDuration('1.5h', '--timeout')).toBe(5400);
    expect(parseMoment('10m', '--since', now)).toBe('2026-01-31T11:50:00.000Z');
    expect(parseMoment('2026-01-30T00:00:00Z', '--since', now)).toBe('2026-01-30T00:00:00.000Z');
    expect(() => parseMoment('soon', '--until', now)).toThrow(
      /^--until: "soon" is neither a duration nor a date/,
    );
    expect(() => parseDuration('10 years', '--timeout')).toThrow(/--timeout/);
  });
});

describe('colour', () => {
  it('is for terminals, unless the environment says otherwise', () => {
    expect(wantsColour({}, true)).toBe(true);
    expect(wantsColour({}, false)).toBe(false);
    expect(wantsColour({ NO_COLOR: '1', FORCE_COLOR: '1' }, true)).toBe(false);
    expect(wantsColour({ NO_COLOR: '' }, true)).toBe(true);
    expect(wantsColour({ FORCE_COLOR: '1' }, false)).toBe(true);
    expect(wantsColour({ TERM: 'dumb' }, true)).toBe(false);
    expect(createStyle(false).bad('x')).toBe('x');
    expect(createStyle(true).bad('x')).toBe('\u001b[31mx\u001b[39m');
  });
});
