/**
 * One look at all waiting tasks, a piece at a time: each piece is decided on what the store shows once the one before is
 * stored, so that placing very many tasks neither holds its thread for long nor makes one entry of them all.
 */
import type { Task } from '../../proto/docker.ts';
import type { Change } from '../store/change.ts';
import type { View } from '../store/store.ts';
import { Attempt } from './attempt.ts';
import {
  byNeed,
  type Group,
  groupByRevision,
  type Joined,
  joinedByNetworks,
  stillWaiting,
} from './groups.ts';
import type { NodeTable } from './node-table.ts';

/** Tasks of a group that are decided on alike. */
interface Part {
  readonly group: Group;
  readonly tasks: readonly Task[];
  /** Absent for tasks that have their node from the start. */
  readonly among?: Among;
}

/** Where the groups of a Joined go. */
interface Among {
  readonly joined: Joined;
  /** The key of a data plane, or undefined when none binds them; not yet looked at without it. */
  home?: { readonly plane: string | undefined };
}

/** A look at as many nodes is reckoned as dear as a task. */
const nodesForTask = 64;

export class Pass {
  private readonly view: View;
  private readonly nodes: NodeTable;
  /** Of the store, when the tasks were read. */
  private readonly index: number;
  private readonly parts: readonly Part[];
  private at = 0;
  /** How many tasks of the part at hand have been decided on. */
  private decided = 0;
  /** Those for which there was no place. */
  private readonly waiting: Part[] = [];
  private told = 0;

  /**
   * Over `pending`, tasks in state 'pending' in the order in which they are to be served. Tasks that have their node
   * from the start (global services) are checked against it and go first.
   */
  constructor(view: View, pending: readonly Task[], nodes: NodeTable) {
    this.view = view;
    this.nodes = nodes;
    this.index = view.index;
    const groups = groupByRevision(view, pending, nodes);
    const parts: Part[] = [];
    for (const group of groups) {
      const preset = group.tasks.filter(isPreset);
      if (preset.length > 0) parts.push({ group, tasks: preset });
    }
    const hasPreset = parts.length > 0;
    for (const joined of joinedByNetworks(byNeed(view, nodes, groups))) {
      const among: Among = { joined };
      for (const group of joined.groups) {
        const tasks = hasPreset ? group.tasks.filter((task) => !isPreset(task)) : group.tasks;
        if (tasks.length > 0) parts.push({ group, tasks, among });
      }
    }
    this.parts = parts;
  }

  /** Whether everything was decided. */
  get isOver(): boolean {
    return this.at >= this.parts.length && this.told >= this.waiting.length;
  }

  /**
   * The changes for about `most` tasks more, at `now` (ms since the epoch): their nodes first, and once all have been
   * tried the reasons of those that wait, as things stand then. The table is left as it was given.
   */
  next(now: number, most: number): Change[] {
    const attempt = new Attempt(this.view, this.nodes, now);
    try {
      let left = most;
      while (left > 0 && this.at < this.parts.length) left -= this.place(attempt, this.parts[this.at]!, left);
      const changes = attempt.changes();
      while (left > 0 && !this.isOver) {
        const part = this.waiting[this.told]!;
        const reasons = this.tell(attempt, part, now);
        this.told += 1;
        left -= 1 + reasons.length + (part.among ? attempt.width / nodesForTask : 0);
        for (const change of reasons) changes.push(change);
      }
      return changes;
    } finally {
      attempt.takeBack();
    }
  }

  /** Decides for some of the part's tasks. Answers how dear that was, in tasks. */
  private place(attempt: Attempt, part: Part, most: number): number {
    const upTo = Math.min(part.tasks.length, this.decided + most);
    const isWhole = this.decided === 0 && upTo === part.tasks.length;
    const tasks = this.asTheyAre(part, isWhole ? part.tasks : part.tasks.slice(this.decided, upTo));
    this.decided = upTo;
    const placed = tasks.length > 0 ? this.decide(attempt, part, tasks) : 0;
    const isStuck = part.among !== undefined && placed < tasks.length;
    if (isStuck) {
      // What has no room for one has none for the next.
      const rest = part.tasks.slice(upTo);
      this.waiting.push({ ...part, tasks: [...tasks.slice(placed), ...rest] });
    }
    if (isStuck || upTo === part.tasks.length) {
      this.at += 1;
      this.decided = 0;
    }
    return 1 + tasks.length + (isStuck ? attempt.width / nodesForTask : 0);
  }

  /** How many of the tasks got a node: the first ones, of those that have none from the start. */
  private decide(attempt: Attempt, { group, among }: Part, tasks: readonly Task[]): number {
    if (among) {
      among.home ??= { plane: attempt.planeFor(among.joined) };
      return attempt.assign(group, tasks, among.home.plane);
    }
    const refused = attempt.confirm(group, tasks);
    // Each has a node, and a reason, of its own.
    for (const task of refused) this.waiting.push({ group, tasks: [task] });
    return tasks.length - refused.length;
  }

  private tell(attempt: Attempt, { group, tasks, among }: Part, now: number): Change[] {
    const current = this.asTheyAre({ group }, tasks);
    const first = current[0];
    const Err = first && attempt.reason(group, first, among?.home?.plane);
    if (Err === undefined) return [];
    const Timestamp = new Date(now).toISOString();
    return current.flatMap((task): Change[] => {
      if (task.Status.Err === Err) return [];
      return [
        { op: 'merge', kind: 'task', id: task.ID, fields: { Status: { ...task.Status, Timestamp, Err } } },
      ];
    });
  }

  /** Those of the tasks that still wait, as they are now. */
  private asTheyAre({ group }: Pick<Part, 'group'>, tasks: readonly Task[]): readonly Task[] {
    if (this.view.index === this.index) return tasks;
    const found: Task[] = [];
    for (const task of tasks) {
      const current = stillWaiting(this.view, task, group);
      if (current) found.push(current);
    }
    return found;
  }
}

function isPreset(task: Task): boolean {
  return task.NodeID !== undefined;
}
