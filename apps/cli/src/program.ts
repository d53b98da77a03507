import { Command } from 'commander';
import { adminCommands } from './commands/admin.ts';
import { appCommands } from './commands/apps.ts';
import { completionCommands } from './commands/completion.ts';
import { configCommands } from './commands/config.ts';
import { contextCommands } from './commands/contexts.ts';
import { copyCommand } from './commands/cp.ts';
import { deployCommand } from './commands/deploy.ts';
import { deploymentCommands } from './commands/deployments.ts';
import { execCommand } from './commands/exec.ts';
import { inspectCommands } from './commands/inspect.ts';
import { gateCommands } from './commands/gates.ts';
import { actWith, examples } from './commands/kit.ts';
import { logsCommand } from './commands/logs.ts';
import { memberCommands } from './commands/members.ts';
import { orderCommands } from './commands/orders.ts';
import { nodeCommands } from './commands/nodes.ts';
import { poolCommands } from './commands/pools.ts';
import { portForwardCommand } from './commands/port-forward.ts';
import { recordCommands } from './commands/records.ts';
import { trafficCommands } from './commands/traffic.ts';
import { releaseCommands } from './commands/releases.ts';
import { runCommands } from './commands/run.ts';
import { signInCommands } from './commands/sign-in.ts';
import { taskCommands } from './commands/tasks.ts';
import { tenantCommands } from './commands/tenants.ts';
import { tokenCommands } from './commands/tokens.ts';
import { exitCodeHelp } from './errors.ts';
import { version } from './graphql/client.ts';
import type { Io } from './session.ts';

const environment = `Environment:
  BULKHEAD_SERVER, BULKHEAD_TOKEN, BULKHEAD_TENANT, BULKHEAD_APP, BULKHEAD_CONTEXT
                         instead of a context, for CI; a token is only sent to its own server
  BULKHEAD_INSECURE=1    as --insecure
  NO_COLOR, FORCE_COLOR  colour or not
  XDG_CONFIG_HOME        contexts are in bulkhead/config.json there (default: ~/.config)`;

/** The whole command line. Errors are thrown, never exited on: `main` decides. */
export function createProgram(io: Io): Command {
  const act = actWith(io);
  const program = new Command('bulkhead')
    .description('Deploy and run apps on a Bulkhead platform.')
    .version(version, '-V, --version', 'print the version')
    .option('--json', 'JSON for scripts: results on stdout, errors on stderr')
    .option('--server <url>', 'address of the API')
    .option('-c, --context <name>', 'context to use instead of the current one')
    .option('--insecure', 'allow plain http to other machines')
    .helpOption('-h, --help', 'show help')
    .addHelpCommand(
      new Command('help')
        .argument('[command]')
        .description('Show help for a command')
        .helpGroup('Other:'),
    )
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => io.streams.stdout.write(text),
      writeErr: (text) => io.streams.stderr.write(text),
      // `main` prints errors, so that --json can turn them into JSON.
      outputError: () => undefined,
      getOutHelpWidth: () => helpWidth(io.streams.stdout),
      getErrHelpWidth: () => helpWidth(io.streams.stderr),
    })
    .exitOverride();

  program.commandsGroup('Getting in:');
  signInCommands(program, act);
  contextCommands(program, act);

  program.commandsGroup('Apps:');
  appCommands(program, act);
  deployCommand(program, act);
  configCommands(program, act);
  releaseCommands(program, act);
  gateCommands(program, deploymentCommands(program, act), act);

  program.commandsGroup('Running:');
  runCommands(program, act);
  orderCommands(program, act);
  logsCommand(program, act);
  inspectCommands(program, act);
  execCommand(program, act);
  taskCommands(program, act);
  copyCommand(program, act);
  portForwardCommand(program, act);

  program.commandsGroup('Tenants:');
  tenantCommands(program, act);
  memberCommands(program, act);
  tokenCommands(program, act);
  recordCommands(program, act);
  trafficCommands(program, act);

  program.commandsGroup('Operators:');
  nodeCommands(program, act);
  poolCommands(program, act);
  adminCommands(program, act);

  program.commandsGroup('Other:');
  examples(
    program
      .command('version')
      .description('Print the version')
      .action(
        act(async (session) => {
          session.out.data({ version, node: process.version });
          session.out.line(`bulkhead ${version} (Node ${process.version})`);
          await Promise.resolve();
        }),
      ),
    ['version', 'version --json'],
  );
  completionCommands(program, io);

  return examples(
    program,
    [
      'login http://127.0.0.1:4000',
      'apps create hello',
      'deploy --app hello --image 127.0.0.1:5000/demo/hello:1',
      'logs --app hello -f',
    ],
    `${environment}\n\n${exitCodeHelp}`,
  );
}

function helpWidth(stream: NodeJS.WriteStream): number {
  // Wider is hard to read; 80 when nobody looks, so that the golden is the same everywhere.
  return stream.isTTY ? Math.min(stream.columns || 80, 110) : 80;
}
