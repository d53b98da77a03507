import { describe as suite, expect, test } from 'vitest';
import { describe, difference, isEmpty, type Inventory } from './leftovers.ts';

const nothing: Inventory = {
  processes: [],
  mounts: [],
  networkNamespaces: [],
  cgroups: [],
  interfaces: [],
  nftTables: [],
  loopDevices: [],
};

suite('difference', () => {
  test("what was there before is nobody's leftover", () => {
    const before = { ...nothing, mounts: ['/', '/proc'], interfaces: ['lo'] };
    expect(isEmpty(difference(before, before))).toBe(true);
    expect(isEmpty(difference(before, { ...nothing, mounts: ['/'] }))).toBe(true);
  });

  test('what is new is named', () => {
    const before = { ...nothing, mounts: ['/'] };
    const after = {
      ...nothing,
      mounts: ['/', '/x'],
      nftTables: ['inet bulkhead'],
      loopDevices: [{ device: '/dev/loop0', file: '/x/pool' }],
    };
    expect(describe(difference(before, after))).toEqual([
      'mount /x',
      'nftables table inet bulkhead',
      'loop device /dev/loop0 on /x/pool',
    ]);
  });

  test('a second mount on the same directory counts', () => {
    expect(
      difference({ ...nothing, mounts: ['/a'] }, { ...nothing, mounts: ['/a', '/a'] }).mounts,
    ).toEqual(['/a']);
  });
});
