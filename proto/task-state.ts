/**
 * The states of a task, in SwarmKit's order and Docker's words. A task's observed state only ever
 * rises; its desired state says where the managers want it.
 */

/** Observed states from first to last, with SwarmKit's numbers (its TaskState enumeration). */
export const taskStateRank = {
  new: 0,
  pending: 64,
  assigned: 192,
  accepted: 256,
  preparing: 320,
  ready: 384,
  starting: 448,
  running: 512,
  complete: 576,
  shutdown: 640,
  failed: 704,
  rejected: 768,
  remove: 800,
  orphaned: 832,
} as const;

export type TaskState = keyof typeof taskStateRank;

/** What managers may ask for. `remove` means: stop it and forget it. */
export type DesiredState = 'ready' | 'running' | 'complete' | 'shutdown' | 'remove';

export const taskStates = Object.keys(taskStateRank) as TaskState[];

/** Negative when `a` comes before `b` in a task's life, 0 when equal, positive when after. */
export function compareTaskStates(a: TaskState, b: TaskState): number {
  return taskStateRank[a] - taskStateRank[b];
}

/** Whether the task has ended: no container of it runs or will run. */
export function isTerminal(state: TaskState): boolean {
  return taskStateRank[state] > taskStateRank.running;
}

/** SwarmKit's wire name of a state, e.g. RUNNING. */
export function wireTaskState(state: TaskState): Uppercase<TaskState> {
  return state.toUpperCase() as Uppercase<TaskState>;
}

/** The state of a wire name; an absent one is NEW, protobuf's zero value. */
export function taskStateOfWire(name: string | undefined): TaskState {
  // A number that this version has no name for arrives as that number.
  const state = String(name ?? 'NEW').toLowerCase();
  return Object.hasOwn(taskStateRank, state) ? (state as TaskState) : 'new';
}
