/**
 * `main.js` runs the edge's controller, `main.js init` writes HAProxy's first configuration, and
 * `main.js haproxy-command` prints the command line that runs HAProxy, for a supervisor's script.
 */
import { pino } from 'pino';
import { Edge, initEdge } from './edge.ts';
import { haproxyCommand, readSettings } from './settings.ts';

async function main(verb: string | undefined): Promise<void> {
  const settings = readSettings(process.env, process.getuid?.() === 0);
  switch (verb) {
    case 'init':
      initEdge(settings);
      return;
    case 'haproxy-command':
      console.log(haproxyCommand(settings.dir).join(' '));
      return;
    case undefined: {
      const log = pino({ level: settings.logLevel, name: 'edge' });
      const edge = new Edge(settings, log);
      for (const signal of ['SIGTERM', 'SIGINT'] as const) {
        process.once(signal, () => {
          void edge.stop().then(() => process.exit(0));
        });
      }
      await edge.start();
      return;
    }
    default:
      throw new Error(`Unknown command "${verb}": use init, haproxy-command or none.`);
  }
}

main(process.argv[2]).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});
