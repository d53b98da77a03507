import { expect, test } from 'vitest';
import {
  isAbove,
  lowerRole,
  operatorPermissions,
  permissions,
  roleMay,
  roles,
} from './permissions.ts';

test('the role table is the reviewed one', async () => {
  const width = Math.max(...permissions.map((permission) => permission.length));
  const line = (permission: string, cells: readonly string[]) =>
    [permission.padEnd(width), ...cells.map((cell, i) => cell.padEnd(roles[i]?.length ?? 0))]
      .join('  ')
      .trimEnd();
  const table = [
    line('', roles),
    ...permissions.map((permission) =>
      line(
        permission,
        roles.map((role) => (roleMay(role, permission) ? 'yes' : '-')),
      ),
    ),
    '',
    `operators: ${operatorPermissions.join(', ')}`,
    '',
  ].join('\n');
  await expect(table).toMatchFileSnapshot('permissions.golden.txt');
});

test('whoever is above may do all that those below may', () => {
  for (const permission of permissions) {
    for (const higher of roles) {
      for (const lower of roles) {
        if (isAbove(higher, lower) && roleMay(lower, permission)) {
          expect(roleMay(higher, permission), `${higher} ${permission}`).toBe(true);
        }
      }
    }
  }
});

test('the lower of two roles', () => {
  expect(lowerRole('owner', 'viewer')).toBe('viewer');
  expect(lowerRole('developer', 'admin')).toBe('developer');
  expect(lowerRole('admin', 'admin')).toBe('admin');
});
