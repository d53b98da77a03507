import { Argument, Option, type Command } from 'commander';
import { addMember, members, removeMember, setMemberRole } from '../graphql/operations.ts';
import { roles, type Role } from '../graphql/types.ts';
import { relative } from '../output/time.ts';
import { examples, groupDefault, tenantOption, type Act } from './kit.ts';

export const roleNames = roles.map((role) => role.toLowerCase());

/** `developer` to DEVELOPER; Commander has checked the choice. */
export const toRole = (name: string): Role => name.toUpperCase() as Role;

export function memberCommands(program: Command, act: Act): void {
  const listAction = act(async (session) => {
    const tenant = session.tenant();
    const now = session.out.now();
    const rows = await session.client().all(members, { tenant }, (result) => result.tenant.members);
    session.out.list(
      rows,
      [
        { title: 'EMAIL', value: (row) => row.email },
        { title: 'NAME', value: (row) => row.name, shrink: true },
        { title: 'ROLE', value: (row) => row.role.toLowerCase() },
        { title: 'SINCE', value: (row) => relative(row.createdAt, now) },
      ],
      `No members in ${tenant}.`,
    );
  });
  const group = tenantOption(
    program.command('members').description('Who is in a tenant, and their roles'),
  );
  examples(groupDefault(group, listAction), [
    'members',
    'members add bob@example.com --role developer',
  ]);
  examples(
    tenantOption(group.command('list').description('List the members (the default)')).action(
      listAction,
    ),
    ['members list --tenant acme', 'members list --json'],
  );
  examples(
    tenantOption(
      group
        .command('add')
        .description('Add somebody who has signed up')
        .argument('<email>')
        .addOption(
          new Option('-r, --role <role>', 'their role').choices(roleNames).default('developer'),
        ),
    ).action(
      act(async (session, options: { role: string }, email: string) => {
        const input = { tenant: session.tenant(), email, role: toRole(options.role) };
        const { addMember: member } = await session.client().request(addMember, { input });
        session.out.data(member);
        session.out.line(`${member.email} is now ${options.role} of ${input.tenant}.`);
      }),
    ),
    ['members add bob@example.com', 'members add eve@example.com --role viewer --tenant acme'],
  );
  examples(
    tenantOption(
      group
        .command('set-role')
        .description('Change the role of a member')
        .argument('<email>')
        .addArgument(new Argument('<role>').choices(roleNames)),
    ).action(
      act(async (session, _options: object, email: string, role: string) => {
        const input = { tenant: session.tenant(), email, role: toRole(role) };
        const { setMemberRole: member } = await session.client().request(setMemberRole, { input });
        session.out.data(member);
        session.out.line(`${member.email} is now ${role} of ${input.tenant}.`);
      }),
    ),
    ['members set-role bob@example.com admin'],
  );
  examples(
    tenantOption(
      group
        .command('remove')
        .description('Remove a member; their API tokens go too')
        .argument('<email>'),
    ).action(
      act(async (session, _options: object, email: string) => {
        const input = { tenant: session.tenant(), email };
        await session.client().request(removeMember, { input });
        session.out.data({ tenant: input.tenant, email, removed: true });
        session.out.line(`${email} is no longer in ${input.tenant}.`);
      }),
    ),
    ['members remove bob@example.com'],
  );
}
