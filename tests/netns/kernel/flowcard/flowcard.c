// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Interfaces with channels, an RSS table and flow rules, and without packets: what ethtool's ioctl
 * needs of a driver, for tests. See README.md.
 */
#include <linux/ethtool.h>
#include <linux/etherdevice.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/version.h>
#include <net/rtnetlink.h>

#define MOST_QUEUES 8
#define RSS_ENTRIES 64
/* Small enough to be filled by a test. */
#define RULES 16

enum {
	CHOOSES_LOCATION = BIT(0),
	HIDES_SIZE = BIT(1),
	BUSY = BIT(2),
};

static const char flag_names[][ETH_GSTRING_LEN] = {
	"chooses-location",
	"hides-size",
	"busy",
};

struct card {
	u32 flags;
	u32 rss[RSS_ENTRIES];
	bool used[RULES];
	struct ethtool_rx_flow_spec rules[RULES];
};

static void spread(struct net_device *dev)
{
	struct card *card = netdev_priv(dev);

	for (int at = 0; at < RSS_ENTRIES; at++)
		card->rss[at] = ethtool_rxfh_indir_default(at, dev->real_num_rx_queues);
}

static void get_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	channels->max_combined = MOST_QUEUES;
	channels->combined_count = dev->real_num_rx_queues;
}

static int set_channels(struct net_device *dev, struct ethtool_channels *channels)
{
	struct card *card = netdev_priv(dev);
	int error;

	if (card->flags & BUSY)
		return -EBUSY;
	error = netif_set_real_num_queues(dev, channels->combined_count, channels->combined_count);
	/* The core forbids numbers that a table which somebody set does not fit. */
	if (!error && !netif_is_rxfh_configured(dev))
		spread(dev);
	return error;
}

static bool known(u32 flow_type)
{
	switch (flow_type & ~FLOW_EXT) {
	case TCP_V4_FLOW:
	case UDP_V4_FLOW:
	case TCP_V6_FLOW:
	case UDP_V6_FLOW:
	case IPV4_USER_FLOW:
	case IPV6_USER_FLOW:
		return true;
	default:
		return false;
	}
}

static bool same_packets(const struct ethtool_rx_flow_spec *one,
			 const struct ethtool_rx_flow_spec *other)
{
	return one->flow_type == other->flow_type &&
	       !memcmp(&one->h_u, &other->h_u, sizeof(one->h_u)) &&
	       !memcmp(&one->m_u, &other->m_u, sizeof(one->m_u)) &&
	       !memcmp(&one->h_ext, &other->h_ext, sizeof(one->h_ext)) &&
	       !memcmp(&one->m_ext, &other->m_ext, sizeof(one->m_ext));
}

static int insert(struct net_device *dev, struct ethtool_rx_flow_spec *rule)
{
	struct card *card = netdev_priv(dev);

	if (!known(rule->flow_type))
		return -EINVAL;
	if (rule->ring_cookie != RX_CLS_FLOW_DISC && rule->ring_cookie >= dev->real_num_rx_queues)
		return -EINVAL;
	if (card->flags & CHOOSES_LOCATION) {
		u32 at;

		if (rule->location != RX_CLS_LOC_ANY)
			return -EINVAL;
		for (at = 0; at < RULES && card->used[at]; at++)
			;
		if (at == RULES)
			return -ENOSPC;
		rule->location = at;
	} else if (rule->location >= RULES) {
		return -EINVAL;
	}
	for (u32 at = 0; at < RULES; at++)
		if (card->used[at] && at != rule->location && same_packets(&card->rules[at], rule))
			return -EEXIST;
	card->used[rule->location] = true;
	card->rules[rule->location] = *rule;
	return 0;
}

static int set_rxnfc(struct net_device *dev, struct ethtool_rxnfc *command)
{
	struct card *card = netdev_priv(dev);
	u32 at = command->fs.location;

	if (!(dev->features & NETIF_F_NTUPLE))
		return -EOPNOTSUPP;
	if (card->flags & BUSY)
		return -EBUSY;
	switch (command->cmd) {
	case ETHTOOL_SRXCLSRLINS:
		return insert(dev, &command->fs);
	case ETHTOOL_SRXCLSRLDEL:
		if (at >= RULES || !card->used[at])
			return -ENOENT;
		card->used[at] = false;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static int get_rxnfc(struct net_device *dev, struct ethtool_rxnfc *command, u32 *locations)
{
	struct card *card = netdev_priv(dev);
	u32 size = card->flags & HIDES_SIZE ? 0 : RULES;
	u32 count = 0;

	switch (command->cmd) {
	case ETHTOOL_GRXRINGS:
		command->data = dev->real_num_rx_queues;
		return 0;
	case ETHTOOL_GRXCLSRLCNT:
		for (u32 at = 0; at < RULES; at++)
			count += card->used[at];
		command->rule_cnt = count;
		command->data = size;
		if (card->flags & CHOOSES_LOCATION)
			command->data |= RX_CLS_LOC_SPECIAL;
		return 0;
	case ETHTOOL_GRXCLSRULE:
		if (command->fs.location >= RULES || !card->used[command->fs.location])
			return -ENOENT;
		command->fs = card->rules[command->fs.location];
		return 0;
	case ETHTOOL_GRXCLSRLALL:
		/* Not in order, as some drivers that keep lists. */
		for (int at = RULES - 1; at >= 0; at--) {
			if (!card->used[at])
				continue;
			if (count == command->rule_cnt)
				return -EMSGSIZE;
			locations[count++] = at;
		}
		command->rule_cnt = count;
		command->data = size;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static u32 rss_size(struct net_device *dev)
{
	return RSS_ENTRIES;
}

static int take_rss(struct net_device *dev, const u32 *table)
{
	struct card *card = netdev_priv(dev);

	if (card->flags & BUSY)
		return -EBUSY;
	if (table)
		memcpy(card->rss, table, sizeof(card->rss));
	return 0;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
static int get_rss(struct net_device *dev, struct ethtool_rxfh_param *rss)
{
	struct card *card = netdev_priv(dev);

	if (rss->indir)
		memcpy(rss->indir, card->rss, sizeof(card->rss));
	rss->hfunc = ETH_RSS_HASH_TOP;
	return 0;
}

static int set_rss(struct net_device *dev, struct ethtool_rxfh_param *rss,
		   struct netlink_ext_ack *extack)
{
	return take_rss(dev, rss->indir);
}
#else
static int get_rss(struct net_device *dev, u32 *table, u8 *key, u8 *function)
{
	struct card *card = netdev_priv(dev);

	if (table)
		memcpy(table, card->rss, sizeof(card->rss));
	if (function)
		*function = ETH_RSS_HASH_TOP;
	return 0;
}

static int set_rss(struct net_device *dev, const u32 *table, const u8 *key, const u8 function)
{
	return take_rss(dev, table);
}
#endif

static int string_count(struct net_device *dev, int set)
{
	return set == ETH_SS_PRIV_FLAGS ? ARRAY_SIZE(flag_names) : -EOPNOTSUPP;
}

static void get_strings(struct net_device *dev, u32 set, u8 *data)
{
	if (set == ETH_SS_PRIV_FLAGS)
		memcpy(data, flag_names, sizeof(flag_names));
}

static u32 get_flags(struct net_device *dev)
{
	struct card *card = netdev_priv(dev);

	return card->flags;
}

static int set_flags(struct net_device *dev, u32 flags)
{
	struct card *card = netdev_priv(dev);

	card->flags = flags;
	return 0;
}

static const struct ethtool_ops ethtool_ops = {
	.get_channels = get_channels,
	.set_channels = set_channels,
	.get_rxnfc = get_rxnfc,
	.set_rxnfc = set_rxnfc,
	.get_rxfh_indir_size = rss_size,
	.get_rxfh = get_rss,
	.set_rxfh = set_rss,
	.get_sset_count = string_count,
	.get_strings = get_strings,
	.get_priv_flags = get_flags,
	.set_priv_flags = set_flags,
};

static netdev_tx_t transmit(struct sk_buff *skb, struct net_device *dev)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

/* How many queues there are is known only now. */
static int start(struct net_device *dev)
{
	spread(dev);
	return 0;
}

static const struct net_device_ops device_ops = {
	.ndo_init = start,
	.ndo_start_xmit = transmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void setup(struct net_device *dev)
{
	ether_setup(dev);
	eth_hw_addr_random(dev);
	dev->netdev_ops = &device_ops;
	dev->ethtool_ops = &ethtool_ops;
	dev->needs_free_netdev = true;
	dev->hw_features |= NETIF_F_NTUPLE;
	dev->features |= NETIF_F_NTUPLE;
}

static unsigned int queues(void)
{
	return MOST_QUEUES;
}

static struct rtnl_link_ops link_ops __read_mostly = {
	.kind = "flowcard",
	.priv_size = sizeof(struct card),
	.setup = setup,
	.get_num_tx_queues = queues,
	.get_num_rx_queues = queues,
};

static int __init flowcard_init(void)
{
	return rtnl_link_register(&link_ops);
}

static void __exit flowcard_exit(void)
{
	rtnl_link_unregister(&link_ops);
}

module_init(flowcard_init);
module_exit(flowcard_exit);
MODULE_ALIAS_RTNL_LINK("flowcard");
MODULE_DESCRIPTION("A network card for tests: flow rules, channels and RSS without packets");
MODULE_LICENSE("Dual BSD/GPL");
