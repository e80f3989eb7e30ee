/** What a network of the cluster must hold beyond its shape: name, driver, options and addresses. */
import { encryptedOption, type IPAMConfig, type NetworkSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { contains, familyOf, formatSubnet, overlaps, parseAddress, parseSubnet } from '../store/ip.ts';
import { checkName, invalid } from './validate.ts';

const knownDriverOptions = ['com.docker.network.driver.mtu', encryptedOption];

/** Throws ShoalError in SwarmKit's words where it has some. */
export function checkNetwork(spec: NetworkSpec): void {
  if (spec.Ingress && spec.Attachable) throw invalid('ingress network cannot be attachable');
  checkName(spec.Name);
  const driver = spec.DriverConfiguration;
  if (driver.Name !== 'overlay') {
    throw new ShoalError(
      'not-supported',
      `network ${spec.Name}: Shoal makes networks of the cluster only, and their driver is overlay, not "${driver.Name}"; use --driver overlay`,
    );
  }
  const option = Object.keys(driver.Options ?? {}).find((name) => !knownDriverOptions.includes(name));
  if (option !== undefined) {
    throw new ShoalError(
      'not-supported',
      `network ${spec.Name}: the driver option "${option}" is not supported by Shoal yet`,
    );
  }
  const ipamDriver = spec.IPAMOptions?.Driver?.Name ?? '';
  if (!['', 'default'].includes(ipamDriver)) {
    throw new ShoalError(
      'not-supported',
      `network ${spec.Name}: the address driver "${ipamDriver}" is not supported by Shoal; leave it out`,
    );
  }
  const configs = spec.IPAMOptions?.Configs ?? [];
  for (const config of configs) checkAddresses(config);
  const six = configs.find((config) => familyOf(config.Subnet ?? '') === 6);
  if (six && !spec.IPv6Enabled) {
    throw invalid(`ipam configuration: subnet ${six.Subnet} is IPv6, and IPv6 is not enabled: use --ipv6`);
  }
  checkApart(configs);
}

function checkAddresses(config: IPAMConfig): void {
  const { Subnet = '', IPRange = '', Gateway = '' } = config;
  const subnet = parseSubnet(Subnet);
  if (!subnet) throw invalid(`ipam configuration: invalid subnet ${Subnet}`);
  const refuse = (what: string, value: string): never => {
    throw invalid(`ipam configuration: subnet ${Subnet} does not contain ${what} ${value}`);
  };
  if (IPRange !== '') {
    const range = parseSubnet(IPRange);
    if (!range) throw invalid(`ipam configuration: invalid range ${IPRange}`);
    if (!contains(subnet, { family: range.family, value: range.base })) refuse('range', IPRange);
  }
  if (Gateway !== '') {
    const gateway = parseAddress(Gateway);
    if (gateway === undefined) throw invalid(`ipam configuration: invalid gateway ${Gateway}`);
    if (!contains(subnet, gateway)) refuse('gateway', Gateway);
  }
}

/** Two subnets of one network would hand out the same address twice. */
function checkApart(configs: readonly IPAMConfig[]): void {
  const subnets = configs
    .map((config) => parseSubnet(config.Subnet ?? ''))
    .filter((one) => one !== undefined);
  subnets.forEach((subnet, at) => {
    const other = subnets.slice(at + 1).find((one) => overlaps(subnet, one));
    if (!other) return;
    throw invalid(`ipam configuration: subnets ${formatSubnet(subnet)} and ${formatSubnet(other)} overlap`);
  });
}
