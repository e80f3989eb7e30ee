/**
 * What a service asks to happen when a config or secret that it uses gets a new version: the label's value, which
 * the managers heed when they roll it out and the agent when it carries it out.
 */

/** Label of services: `restart` (what holds without it), `none`, or `signal:` and a signal's name. */
export const rotateLabel = 'shoal.rotate';

/**
 * - `restart`: its tasks are replaced in a rolling update by the service's update settings.
 * - `signal`: the file changes where it is, in the running container, which gets the signal then.
 * - `none`: the service keeps the version it has, until it is changed itself.
 */
export type Rotation =
  | { readonly kind: 'restart' }
  | { readonly kind: 'none' }
  | { readonly kind: 'signal'; readonly signal: string };

/** Signals that a program can answer by reading its files anew; SIGKILL and SIGSTOP are none. */
const signals: ReadonlySet<string> = new Set(
  'SIGHUP SIGINT SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGTERM SIGCONT SIGWINCH SIGURG SIGIO SIGPWR'.split(' '),
);

/** The rotation that a label's value asks for; undefined when it is none. */
export function parseRotation(value: string): Rotation | undefined {
  if (value === 'restart' || value === 'none') return { kind: value };
  const [word, signal = '', ...more] = value.split(':');
  if (word !== 'signal' || more.length > 0 || !signals.has(signal)) return undefined;
  return { kind: 'signal', signal };
}
