import type { Command } from 'commander';
import { CliError } from '../errors.ts';
import { abort, deploymentById, latestDeployment, promote } from '../graphql/operations.ts';
import type { Session } from '../session.ts';
import { followOrDetach } from './deployments.ts';
import { appOptions, examples, placeOf, waitOptions, type Act, type WaitOptions } from './kit.ts';

interface PromoteOptions extends WaitOptions {
  readonly full?: boolean;
}

/** Each by itself and in the group of deployments, where one looks for it. */
export function gateCommands(program: Command, deployments: Command, act: Act): void {
  for (const parent of [program, deployments]) {
    promoteCommand(parent, act);
    abortCommand(parent, act);
  }
}

/** Looks first what it stands at, so that a request that is sent twice opens one gate. */
async function runPromote(session: Session, options: PromoteOptions, id?: string): Promise<void> {
  const at = session.app();
  const client = session.client();
  const which = id ?? (await newest(session, at));
  const { deployment } = await client.request(deploymentById, { id: which });
  const step = deployment.pause?.step ?? null;
  const input = { ...at, deployment: which, step, full: options.full ?? false };
  await client.request(promote, { input });
  session.out.note(`Promoted${step === null ? '' : ` past step ${String(step)}`}.`);
  await followOrDetach(session, which, at, options);
}

async function runAbort(session: Session, id?: string): Promise<void> {
  const at = session.app();
  const which = id ?? (await newest(session, at));
  const input = { ...at, deployment: which };
  const { abort: deployment } = await session.client().request(abort, { input });
  session.out.data(deployment);
  const back =
    deployment.from === null ? '' : `: ${at.app} goes back to v${String(deployment.from.version)}`;
  session.out.line(`Aborted${back}.`);
}

async function newest(session: Session, at: { tenant: string; app: string }): Promise<string> {
  const { app } = await session.client().request(latestDeployment, at);
  if (app.latestDeployment !== null) return app.latestDeployment.id;
  throw new CliError('NOT_FOUND', `${at.app} has no deployment yet`, {
    hint: `Deploy something: bulkhead deploy${placeOf(session, at)} --image IMAGE`,
  });
}

function promoteCommand(parent: Command, act: Act): void {
  examples(
    waitOptions(
      appOptions(
        parent
          .command('promote')
          .description('Let a deployment go on that waits: the next step, or the change-over')
          .argument('[id]', 'default: the latest')
          .option('--full', 'past every step that is left'),
      ),
    ).action(
      act((session, options: PromoteOptions, id?: string) => runPromote(session, options, id)),
    ),
    ['promote --app hello', 'promote --app hello --full'],
  );
}

function abortCommand(parent: Command, act: Act): void {
  examples(
    appOptions(
      parent
        .command('abort')
        .description('End a deployment and go back to what ran before')
        .argument('[id]', 'default: the latest'),
    ).action(act((session, _options: object, id?: string) => runAbort(session, id))),
    ['abort --app hello'],
  );
}
