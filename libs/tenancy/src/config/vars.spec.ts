import { expect, test } from 'vitest';
import { ConfigCipher } from './cipher.ts';
import { applyConfigChanges, maxValueBytes } from './vars.ts';

const before = new Map([['A', '1']]);

test('sets, changes and removes', () => {
  const after = applyConfigChanges(before, [
    { name: 'B', value: '' },
    { name: 'A', value: null },
    { name: 'NOT_THERE', value: null },
  ]);
  expect([...after]).toEqual([['B', '']]);
  expect([...before]).toEqual([['A', '1']]);
});

test.each([
  ['not starting with a digit', [{ name: '1A', value: 'x' }]],
  ['not starting with a digit', [{ name: '', value: 'x' }]],
  ['set by the platform', [{ name: 'PORT', value: 'x' }]],
  ['set by the platform', [{ name: 'BULKHEAD_APP', value: 'x' }]],
  [
    'given twice',
    [
      { name: 'X', value: 'secret' },
      { name: 'X', value: null },
    ],
  ],
  ['NUL', [{ name: 'X', value: 'secret\0' }]],
  ['32769 bytes', [{ name: 'X', value: 'secret'.padEnd(maxValueBytes + 1, 'x') }]],
  [
    'in all',
    Array.from({ length: 9 }, (_, i) => ({ name: `X${i}`, value: 's'.repeat(maxValueBytes) })),
  ],
])('INVALID: %s; the message holds no value', (message, changes) => {
  const apply = () => applyConfigChanges(before, changes);
  expect(apply).toThrow(
    expect.objectContaining({ code: 'INVALID', message: expect.stringContaining(message) }),
  );
  expect(apply).not.toThrow('secret');
});

test('what is sealed opens with the same key and for the same app only', async () => {
  const key = (fill: number) => ({ kty: 'oct', k: Buffer.alloc(32, fill).toString('base64url') });
  const cipher = new ConfigCipher(key(1));
  const sealed = await cipher.seal('secret', 'app-1');
  expect(sealed).not.toContain(Buffer.from('secret').toString('base64url'));
  expect(await cipher.open(sealed, 'app-1')).toBe('secret');
  await expect(cipher.open(sealed, 'app-2')).rejects.toThrow();
  await expect(new ConfigCipher(key(2)).open(sealed, 'app-1')).rejects.toThrow();
  expect(() => new ConfigCipher({ kty: 'oct', k: 'c2hvcnQ' })).toThrow('256 bits');
});
