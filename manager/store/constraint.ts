/**
 * Placement constraints: `key == value` and `key != value` over what is known of a node. Here because
 * both the scheduler (where may a task go) and the orchestrator (may it stay there) must agree on them.
 *
 * The rules are SwarmKit's: keys and values are compared without regard to case, the name of a label
 * exactly; a label that a node lacks counts as an empty value; a key that nobody knows matches no node.
 */
import type { ClusterNode, Labels } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';

export interface Constraint {
  readonly key: string;
  readonly operator: '==' | '!=';
  readonly value: string;
}

const operators = ['==', '!='] as const;
const keyPattern = /^[a-z_][a-z0-9\-_.]+$/i;
const valuePattern = /^[a-z0-9:\-_\s.*()?+[\]\\^$|/]+$/i;
const nodeLabelPrefix = 'node.labels.';
const engineLabelPrefix = 'engine.labels.';

/** The constraints of `expressions`, in order. Throws ShoalError 'invalid-argument' on the first bad one. */
export function parseConstraints(expressions: readonly string[] | undefined): Constraint[] {
  return (expressions ?? []).map(parseConstraint);
}

function parseConstraint(expression: string): Constraint {
  const operator = operators.find((candidate) => expression.includes(candidate));
  if (operator === undefined) {
    throw invalid(expression, `it needs one operator of ${operators.join(', ')}, as in node.role==manager`);
  }
  const at = expression.indexOf(operator);
  const key = expression.slice(0, at).trim();
  const value = expression.slice(at + operator.length).trim();
  if (!keyPattern.test(key)) throw invalid(expression, `key '${key}' is invalid`);
  if (!valuePattern.test(value)) throw invalid(expression, `value '${value}' is invalid`);
  return { key, operator, value };
}

function invalid(expression: string, reason: string): ShoalError {
  return new ShoalError('invalid-argument', `invalid placement constraint "${expression}": ${reason}`);
}

/** Whether `node` satisfies all of `constraints`. */
export function matchesConstraints(constraints: readonly Constraint[], node: ClusterNode): boolean {
  return constraints.every((constraint) => matches(constraint, node));
}

/** Why `node` does not satisfy `constraints`, by the first that fails; undefined when it does. */
export function explainConstraints(
  constraints: readonly Constraint[],
  node: ClusterNode,
): string | undefined {
  const failed = constraints.find((constraint) => !matches(constraint, node));
  if (!failed) return undefined;
  const wanted = describeConstraint(failed);
  if (isAddress(failed.key)) {
    if (parseRange(failed.value) === undefined) return `${wanted} names no address or subnet`;
    return `${wanted}, but the node's address is "${node.Status.Addr}"`;
  }
  const actual = nodeValue(failed.key, node);
  if (actual === undefined) return `${wanted} asks for a key that does not exist`;
  return actual === '' ? `${wanted}, but it is not set` : `${wanted}, but it is "${actual}"`;
}

/** A constraint as a person writes it. */
export function describeConstraint(constraint: Constraint): string {
  return `${constraint.key}${constraint.operator}${constraint.value}`;
}

function matches(constraint: Constraint, node: ClusterNode): boolean {
  const wantsEqual = constraint.operator === '==';
  if (isAddress(constraint.key)) {
    const range = parseRange(constraint.value);
    return range !== undefined && contains(range, node.Status.Addr) === wantsEqual;
  }
  const actual = nodeValue(constraint.key, node);
  return actual !== undefined && (fold(actual) === fold(constraint.value)) === wantsEqual;
}

function isAddress(key: string): boolean {
  return fold(key) === 'node.ip';
}

/** What a node has under a key; empty when it has nothing, undefined when there is no such key. */
function nodeValue(key: string, node: ClusterNode): string | undefined {
  switch (fold(key)) {
    case 'node.id':
      return node.ID;
    case 'node.hostname':
      return node.Description.Hostname;
    case 'node.role':
      return node.Private.Role;
    case 'node.platform.os':
      return node.Description.Platform.OS;
    case 'node.platform.arch':
      return node.Description.Platform.Architecture;
    default:
      return (
        labelOf(key, nodeLabelPrefix, node.Spec.Labels) ??
        labelOf(key, engineLabelPrefix, node.Description.Engine.Labels)
      );
  }
}

function labelOf(key: string, prefix: string, labels: Labels): string | undefined {
  if (key.length <= prefix.length || !fold(key).startsWith(prefix)) return undefined;
  const name = key.slice(prefix.length);
  return Object.hasOwn(labels, name) ? labels[name] : '';
}

function fold(text: string): string {
  return text.toLowerCase();
}

// ---------------------------------------------------------------- addresses

interface Address {
  readonly bits: 32 | 128;
  readonly value: bigint;
}

interface Range extends Address {
  readonly prefixBits: number;
}

function parseRange(text: string): Range | undefined {
  const [host, prefix, ...rest] = text.split('/');
  const address = parseAddress(host ?? '');
  if (!address || rest.length > 0) return undefined;
  if (prefix === undefined) return { ...address, prefixBits: address.bits };
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > address.bits) return undefined;
  return { ...address, prefixBits: Number(prefix) };
}

function contains(range: Range, text: string): boolean {
  const address = parseAddress(text);
  if (!address || address.bits !== range.bits) return false;
  const shift = BigInt(range.bits - range.prefixBits);
  return address.value >> shift === range.value >> shift;
}

/** An IPv4 or IPv6 address; one that maps an IPv4 address into IPv6 is that IPv4 address. */
function parseAddress(text: string): Address | undefined {
  if (!text.includes(':')) {
    const value = parseDotted(text);
    return value === undefined ? undefined : { bits: 32, value };
  }
  const groups = parseGroups(text);
  if (!groups) return undefined;
  const value = groups.reduce((sum, group) => (sum << 16n) | BigInt(group), 0n);
  const isMapped = value >> 32n === 0xffffn;
  return isMapped ? { bits: 32, value: value & 0xffffffffn } : { bits: 128, value };
}

function parseDotted(text: string): bigint | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  if (!parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) return undefined;
  return parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
}

/** The eight 16-bit groups of an IPv6 address. */
function parseGroups(text: string): number[] | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const lists = halves.map((half) => (half === '' ? [] : half.split(':')));
  const last = lists.at(-1)!;
  const dotted = last.at(-1)?.includes('.') ? parseDotted(last.pop()!) : undefined;
  if (dotted !== undefined) last.push((dotted >> 16n).toString(16), (dotted & 0xffffn).toString(16));
  const [head, tail] = [lists[0]!, halves.length === 2 ? lists[1]! : []];
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...head, ...new Array<string>(missing).fill('0'), ...tail];
  return all.every((group) => /^[0-9a-f]{1,4}$/i.test(group))
    ? all.map((group) => Number.parseInt(group, 16))
    : undefined;
}
