import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeMember,
  makeTenant,
  makeUser,
  type TestDatabase,
} from '../testing.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

const create = (user: Caller, slug: string) =>
  db.tenancy.asUser(user, (tx) => tx.tenants.create({ slug }));

test('a user owns three tenants at most, also when many are asked for at once', async () => {
  const user = await makeUser(db.tenancy, 'collector');
  const results = await Promise.allSettled(
    Array.from({ length: 6 }, (_, i) => create(user, `collected-${i}`)),
  );
  const refusals = results.flatMap((result) =>
    result.status === 'rejected' ? [result.reason as unknown] : [],
  );
  expect(refusals).toHaveLength(3);
  for (const refusal of refusals) {
    expect(refusal).toMatchObject({
      code: 'QUOTA_EXCEEDED',
      message: expect.stringContaining('ask an operator') as string,
      details: { resource: 'tenants', used: 3, limit: 3 },
    });
  }
});

test('being a member elsewhere does not count, and operators own as many as they like', async () => {
  const owner = await makeTenant(db.tenancy, 'employer');
  const user = await makeMember(db.tenancy, owner, 'employer', 'admin');
  for (const n of [1, 2, 3]) await create(user, `side-${n}`);
  const operator = await makeUser(db.tenancy, 'op', { operator: true });
  for (const n of [1, 2, 3, 4, 5]) await create(operator, `platform-own-${n}`);
});

test('handing a tenant over does not make room for another', async () => {
  const user = await makeUser(db.tenancy, 'hoarder');
  const friend = await makeUser(db.tenancy, 'friend');
  for (const n of [1, 2, 3]) await create(user, `hoard-${n}`);
  for (const n of [1, 2, 3]) await create(friend, `friendly-${n}`);
  const refusal = {
    code: 'QUOTA_EXCEEDED',
    message: expect.stringContaining('friend@example.org owns as many') as string,
  };
  const add = (role: 'owner' | 'admin') =>
    db.tenancy.run(user, { tenant: 'hoard-1', permission: 'member.add' }, (tx) =>
      tx.members.add({ email: friend.email, role }),
    );
  await expect(add('owner')).rejects.toMatchObject(refusal);
  await add('admin');
  await expect(
    db.tenancy.run(user, { tenant: 'hoard-1', permission: 'member.setRole' }, (tx) =>
      tx.members.setRole({ email: friend.email, role: 'owner' }),
    ),
  ).rejects.toMatchObject(refusal);
});
