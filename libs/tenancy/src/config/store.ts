import type { TenantContext } from '../db/context.ts';

/** The app's config in the clear, by name. */
export async function readConfig(
  { db, tenant, cipher }: TenantContext,
  appId: string,
): Promise<Map<string, string>> {
  const rows = await db.configVar.findMany({
    where: { appId, tenantId: tenant.id },
    orderBy: { name: 'asc' },
  });
  return new Map(
    await Promise.all(
      rows.map(
        async ({ name, ciphertext }) => [name, await cipher.open(ciphertext, appId)] as const,
      ),
    ),
  );
}

/** Makes the app's config exactly this. */
export async function writeConfig(
  { db, tenant, cipher }: TenantContext,
  appId: string,
  config: ReadonlyMap<string, string>,
): Promise<void> {
  const data = await Promise.all(
    [...config].map(async ([name, value]) => ({
      appId,
      tenantId: tenant.id,
      name,
      ciphertext: await cipher.seal(value, appId),
    })),
  );
  await db.configVar.deleteMany({ where: { appId, tenantId: tenant.id } });
  await db.configVar.createMany({ data });
}
