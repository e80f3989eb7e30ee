/** One scenario file with the environment that its directives are for. */
import fs from 'node:fs';
import { type Directive, parseScenario, type RunOptions, runScenario } from './data-driven.ts';
import { InteractionEnvironment } from './interaction.ts';
import { ConfChangeEnvironment, handleQuorum } from './pure-commands.ts';

type Handler = (directive: Directive) => string;

const quorumCommands: ReadonlySet<string> = new Set(['committed', 'vote']);
const confChangeCommands: ReadonlySet<string> = new Set(['simple', 'enter-joint', 'leave-joint']);

/** Files of etcd's are of three kinds, told apart by their directives; one environment a file. */
function handlerFor(directives: readonly Directive[]): Handler {
  const all = (commands: ReadonlySet<string>) => directives.every(({ command }) => commands.has(command));
  if (all(quorumCommands)) return handleQuorum;
  if (all(confChangeCommands)) {
    const environment = new ConfChangeEnvironment();
    return (directive) => environment.handle(directive);
  }
  const environment = new InteractionEnvironment();
  return (directive) => environment.handle(directive);
}

/** Members' log lines are in words of etcd's own, and are left out. */
export function withoutLogLines(output: string): string {
  const kept = output.split('\n').filter((line) => !/^\s*(DEBUG|INFO|WARN|ERROR|FATAL) /.test(line));
  const text = kept.join('\n');
  return text.trim() === '' ? 'ok\n' : text;
}

/** Runs the file and answers how many directives it has; throws at the first one whose output is another. */
export function runScenarioFile(path: string, options: RunOptions): number {
  const directives = parseScenario(fs.readFileSync(path, 'utf8'));
  if (directives.length === 0) throw new Error(`${path}: no directive in it`);
  runScenario(path, handlerFor(directives), options);
  return directives.length;
}
