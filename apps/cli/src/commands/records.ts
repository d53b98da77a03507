import type { Command } from 'commander';
import { usageError } from '../errors.ts';
import { audit, images, setQuota, tenantQuota } from '../graphql/operations.ts';
import type { AuditEntry, QuotaUsage } from '../graphql/types.ts';
import { plainText } from '../output/text.ts';
import { relative } from '../output/time.ts';
import type { Session } from '../session.ts';
import { examples, groupDefault, integer, tenantOption, type Act } from './kit.ts';

// What a tenant can look up about itself: what it uses, who changed what, which images.

/** The quota ledger as people read it: what is near its limit stands out. */
export function quotaTable(session: Session, rows: readonly QuotaUsage[]): void {
  const { style } = session.out;
  // Nothing of nothing is no share: of high priority a tenant has none until some is granted.
  const share = ({ used, limit }: QuotaUsage) => (limit > 0 ? used / limit : used > 0 ? 1 : 0);
  session.out.table(rows, [
    { title: 'RESOURCE', value: (row) => row.resource },
    { title: 'USED', value: (row) => number(row.used), align: 'right' },
    { title: 'LIMIT', value: (row) => number(row.limit), align: 'right' },
    { title: 'UNIT', value: (row) => row.unit },
    {
      title: '',
      value: (row) => `${String(Math.round(share(row) * 100))}%`,
      align: 'right',
      style: (cell, row) =>
        share(row) >= 1 ? style.bad(cell) : share(row) >= 0.8 ? style.warn(cell) : cell,
    },
  ]);
}

const number = (value: number) => String(Math.round(value * 1000) / 1000);

/** `812 KiB`, `1.5 GiB` */
export function bytes(size: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = size;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? String(Math.round(value)) : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** `version=3 image=demo/hello:3` */
function detailOf({ detail }: AuditEntry): string {
  const fields = Object.entries(JSON.parse(detail) as Record<string, unknown>);
  const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  return fields.map(([name, value]) => `${name}=${plainText(text(value))}`).join(' ');
}

export function recordCommands(program: Command, act: Act): void {
  examples(
    tenantOption(
      program
        .command('audit')
        .description('Who changed what, newest first')
        .option('-n, --limit <count>', 'how many', integer(1, 10_000), 50),
    ).action(
      act(async (session, options: { limit: number }) => {
        const tenant = session.tenant();
        const now = session.out.now();
        const rows = await session
          .client()
          .all(audit, { tenant }, (result) => result.tenant.auditLog, options.limit);
        session.out.list(
          rows,
          [
            { title: 'WHEN', value: (row) => relative(row.at, now) },
            { title: 'WHO', value: (row) => row.actor, shrink: true },
            { title: 'ACTION', value: (row) => row.action },
            { title: 'TARGET', value: (row) => row.target, shrink: true },
            { title: 'DETAIL', value: detailOf, shrink: true },
          ],
          `Nothing in the audit log of ${tenant}.`,
        );
      }),
    ),
    ['audit', 'audit -n 500 --json'],
  );

  examples(
    tenantOption(
      program.command('images').description('Images that releases of the tenant use'),
    ).action(
      act(async (session) => {
        const tenant = session.tenant();
        const now = session.out.now();
        const rows = await session
          .client()
          .all(images, { tenant }, (result) => result.tenant.images);
        session.out.list(
          rows,
          [
            { title: 'IMAGE', value: (row) => row.reference, shrink: true },
            { title: 'DIGEST', value: (row) => row.digest.slice(0, 19) },
            { title: 'SIZE', value: (row) => bytes(row.size), align: 'right' },
            { title: 'USED BY', value: (row) => `${row.app} v${String(row.release)}` },
            { title: 'CREATED', value: (row) => relative(row.createdAt, now) },
          ],
          `No images in ${tenant} yet.`,
        );
      }),
    ),
    ['images', 'images --json'],
  );

  const show = act(async (session) => {
    const { tenant } = await session.client().request(tenantQuota, { tenant: session.tenant() });
    session.out.data(tenant.quota);
    quotaTable(session, tenant.quota);
  });
  const quota = tenantOption(
    program.command('quota').description('What a tenant uses and may use'),
  );
  examples(groupDefault(quota, show), ['quota', 'quota --tenant acme --json']);
  examples(
    tenantOption(
      quota
        .command('set')
        .description('Change limits (operators)')
        .argument('<resource=limit...>', 'see `bulkhead quota` for the resources'),
    ).action(
      act(async (session, _options: object, limits: string[]) => {
        const tenant = session.tenant();
        const inputs = limits.map((text) => {
          const match = /^([A-Za-z]+)=(\d+(?:\.\d+)?)$/.exec(text);
          if (!match)
            throw usageError(
              `"${text}" is not resource=limit`,
              'Example: bulkhead quota set apps=20',
            );
          return { tenant, resource: match[1] ?? '', limit: Number(match[2]) };
        });
        const client = session.client();
        let usage: QuotaUsage[] = [];
        for (const input of inputs) usage = (await client.request(setQuota, { input })).setQuota;
        session.out.data(usage);
        quotaTable(session, usage);
      }),
    ),
    ['quota set apps=20 memoryMiB=8192 --tenant acme'],
  );
}
