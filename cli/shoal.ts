#!/usr/bin/env node
/**
 * shoal, the client. In: words of a command line. Out: requests to one daemon, and lines that a person or
 * a script reads. It holds no state and decides nothing. Exit status: 0 done, 1 failed, 2 wrong usage.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { messageOf } from '../proto/errors.ts';
import { packageVersion } from '../proto/version.ts';
import { ApiClient, defaultHost, parseHost } from './client.ts';
import { addNodeCommands } from './commands/node.ts';
import { addFileCommands, addNetworkCommands } from './commands/objects.ts';
import { addServiceCommands } from './commands/service.ts';
import { addStackCommands } from './commands/stack.ts';
import { addSwarmCommands } from './commands/swarm.ts';
import type { Context } from './context.ts';
import { printError } from './output.ts';
import { realClock } from './runtime.ts';

const usageStatus = 2;

function makeProgram(): Command {
  const program = new Command('shoal')
    .description('a cluster scheduler for containers')
    .version(packageVersion(), '-v, --version')
    .option('-H, --host <host>', `daemon to talk to (default: $SHOAL_HOST, else ${defaultHost})`)
    .enablePositionalOptions()
    .showHelpAfterError('(shoal COMMAND --help tells more)');
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
  addStackCommands(program, context);
  addFileCommands(program, context, 'secret');
  addFileCommands(program, context, 'config');
  addNetworkCommands(program, context);
  for (const command of allCommands(program)) command.exitOverride().enablePositionalOptions();
  return program;
}

function allCommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(allCommands)];
}

async function main(): Promise<void> {
  // A reader that has seen enough (`| head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  try {
    await makeProgram().parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : usageStatus;
    else {
      printError(messageOf(error));
      process.exitCode = 1;
    }
  }
}

await main();
