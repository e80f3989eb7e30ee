/** The client's commands, put together. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { packageVersion } from '../proto/version.ts';
import { ApiClient, defaultHost, parseHost } from './client.ts';
import { addBackupCommands } from './commands/backup.ts';
import { addImportCommand } from './commands/import.ts';
import { addNetworkCommands } from './commands/network.ts';
import { addNodeCommands } from './commands/node.ts';
import { addFileCommands } from './commands/objects.ts';
import { addServiceCommands } from './commands/service.ts';
import { addStackCommands } from './commands/stack.ts';
import { addSwarmCommands } from './commands/swarm.ts';
import { addSystemCommands } from './commands/system.ts';
import { addTaskCommands } from './commands/why.ts';
import type { Context } from './context.ts';
import { realClock } from './runtime.ts';
import { UsageError } from './usage.ts';

const usageStatus = 2;

/** The client's commands; parsing runs the one that was asked for. */
export function makeProgram(): Command {
  const program = new Command('shoal')
    .description('a cluster scheduler for containers')
    .version(packageVersion(), '-v, --version')
    .option('-H, --host <host>', `daemon to talk to (default: $SHOAL_HOST, else ${defaultHost})`)
    .enablePositionalOptions()
    .addHelpText('after', '\nRun "shoal COMMAND --help" for more about a command.');
  const context: Context = {
    clock: realClock,
    client: () => {
      const { host } = program.opts<{ host?: string }>();
      const certPath = process.env.SHOAL_CERT_PATH ?? join(homedir(), '.shoal');
      return new ApiClient(parseHost(host ?? process.env.SHOAL_HOST ?? defaultHost, certPath));
    },
  };
  addSwarmCommands(program, context);
  addNodeCommands(program, context);
  addServiceCommands(program, context);
  addTaskCommands(program, context);
  addStackCommands(program, context);
  addFileCommands(program, context, 'secret');
  addFileCommands(program, context, 'config');
  addNetworkCommands(program, context);
  addBackupCommands(program, context);
  addImportCommand(program, context);
  addSystemCommands(program, context);
  for (const command of allCommands(program)) finish(command);
  return program;
}

/** What holds for every command: sorted help, errors as exceptions, a pointer to the help after them. */
function finish(command: Command): void {
  command
    .exitOverride()
    .enablePositionalOptions()
    .configureHelp({ sortOptions: true })
    .showHelpAfterError(`Run "${pathOf(command)} --help" for how to use it.`);
}

function pathOf(command: Command): string {
  return command.parent ? `${pathOf(command.parent)} ${command.name()}` : command.name();
}

function allCommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(allCommands)];
}

/** The exit status that an error of parsing or of a command means: 0 help was asked for, 1 failed, 2 wrong usage. */
export function exitStatusOf(error: unknown): number {
  if (!(error instanceof CommanderError)) return error instanceof UsageError ? usageStatus : 1;
  // A noun without a verb prints its help, as docker does, and that is no mistake.
  return error.exitCode === 0 || error.code === 'commander.help' ? 0 : usageStatus;
}
