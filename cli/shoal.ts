#!/usr/bin/env node
/**
 * shoal, the client. In: words of a command line. Out: requests to one daemon, and lines that a person or
 * a script reads. It holds no state and decides nothing. Exit status: 0 done, 1 failed, 2 wrong usage.
 */
import { CommanderError } from 'commander';
import { messageOf } from '../proto/errors.ts';
import { printError } from './output.ts';
import { exitStatusOf, makeProgram } from './program.ts';
import { takeSwitchValues } from './usage.ts';

async function main(): Promise<void> {
  // A reader that has seen enough (`| head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  try {
    const program = makeProgram();
    await program.parseAsync(takeSwitchValues(program, process.argv.slice(2)), { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) printError(messageOf(error));
    process.exitCode = exitStatusOf(error);
  }
}

await main();
