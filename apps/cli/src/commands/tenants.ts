import type { Command } from 'commander';
import { withContext } from '../context/settings.ts';
import { usageError } from '../errors.ts';
import { allTenants, createTenant, me, tenantInfo } from '../graphql/operations.ts';
import { relative } from '../output/time.ts';
import type { Session } from '../session.ts';
import { examples, groupDefault, tenantOption, type Act } from './kit.ts';
import { quotaTable } from './records.ts';

async function listTenants(session: Session, all: boolean): Promise<void> {
  const client = session.client();
  const now = session.out.now();
  if (all) {
    const rows = await client.all(allTenants, {}, (result) => result.tenants);
    session.out.list(
      rows,
      [
        { title: 'TENANT', value: (row) => row.slug },
        { title: 'NAME', value: (row) => row.name, shrink: true },
        { title: 'CREATED', value: (row) => relative(row.createdAt, now) },
      ],
      'No tenants yet.',
    );
    return;
  }
  const { me: viewer } = await client.request(me, {});
  const { tenant: current } = session.connection;
  const rows = viewer.memberships.map(({ role, tenant }) => ({
    ...tenant,
    role,
    current: tenant.slug === current,
  }));
  session.out.list(
    rows,
    [
      { title: '', value: (row) => (row.current ? '*' : '') },
      { title: 'TENANT', value: (row) => row.slug },
      { title: 'NAME', value: (row) => row.name, shrink: true },
      { title: 'YOUR ROLE', value: (row) => row.role.toLowerCase() },
    ],
    'You are in no tenant yet. Make one: bulkhead tenants create NAME',
  );
}

/** Writes the tenant into the context in use. */
async function use(session: Session, slug: string): Promise<void> {
  const { context, server } = session.connection;
  if (context === null) {
    throw usageError(
      'there is no context to keep the tenant in',
      'Sign in with `bulkhead login`, or set BULKHEAD_TENANT.',
    );
  }
  await session.store(withContext(session.stored, context, { server, tenant: slug }));
}

export function tenantCommands(program: Command, act: Act): void {
  const listAction = act((session, options: { all?: boolean }) =>
    listTenants(session, options.all === true),
  );
  const group = program
    .command('tenants')
    .description('Organisations: list, create, choose')
    .option('--all', 'every tenant of the platform (operators)');
  examples(groupDefault(group, listAction), ['tenants', 'tenants use demo']);
  examples(
    group
      .command('list')
      .description('List your tenants; * is the current one (the default)')
      .option('--all', 'every tenant of the platform (operators)')
      .action(listAction),
    ['tenants list', 'tenants list --all --json'],
  );
  examples(
    group
      .command('create')
      .description('Make a tenant, with you as its owner, and choose it')
      .argument('<slug>', 'its name in addresses: a-z, 0-9 and -')
      .option('--name <name>', 'its name for people')
      .action(
        act(async (session, options: { name?: string }, slug: string) => {
          const input = { slug, name: options.name ?? null };
          const { createTenant: tenant } = await session.client().request(createTenant, { input });
          if (session.connection.context !== null) await use(session, tenant.slug);
          session.out.data(tenant);
          session.out.line(`Made tenant ${tenant.slug}. Next: bulkhead apps create NAME`);
        }),
      ),
    ['tenants create acme --name "Acme Ltd"'],
  );
  examples(
    group
      .command('use')
      .description('Choose the tenant that commands are for')
      .argument('<slug>')
      .action(
        act(async (session, _options: object, slug: string) => {
          const { tenant } = await session.client().request(tenantInfo, { tenant: slug });
          await use(session, tenant.slug);
          session.out.data({ slug: tenant.slug, name: tenant.name });
          session.out.line(`Now working in ${tenant.slug}.`);
        }),
      ),
    ['tenants use acme'],
  );
  examples(
    tenantOption(
      group
        .command('info')
        .description('Show a tenant and what it uses')
        .argument('[slug]', 'default: the current tenant'),
    ).action(
      act(async (session, _options: object, slug?: string) => {
        const { tenant } = await session
          .client()
          .request(tenantInfo, { tenant: slug ?? session.tenant() });
        const { out } = session;
        out.data(tenant);
        out.fields([
          ['Tenant', tenant.slug],
          ['Name', tenant.name],
          ['Created', relative(tenant.createdAt, out.now())],
          ['Apps', String(tenant.apps.totalCount)],
          ['Members', String(tenant.members.totalCount)],
        ]);
        out.line();
        quotaTable(session, tenant.quota);
      }),
    ),
    ['tenants info', 'tenants info acme --json'],
  );
}
