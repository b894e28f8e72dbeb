/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Asks for one of everything and prints what came of it: exchange SOCKET INTERFACE MILLISECONDS */
#include <pointsman.h>

static int told(const char *what, int answer)
{
	printf("%s %d %s\n", what, answer, answer < 0 ? pointsman_error(answer) : "done");
	return answer;
}

int main(int count, char **arguments)
{
	struct pointsman manager;
	unsigned int interface;
	int map;

	if (count != 4)
		return 2;
	interface = (unsigned int)atoi(arguments[2]);
	if (told("connect", pointsman_connect(&manager, arguments[1], atoi(arguments[3]))))
		return 1;
	told("heartbeat", pointsman_heartbeat(&manager));
	told("register", pointsman_register(&manager, &interface, interface ? 1 : 0));
	told("queue", pointsman_take_queue(&manager, interface));
	map = pointsman_map_fd(&manager, interface);
	told("map", map < 0 ? map : 1);
	told("port", pointsman_add_port(&manager, interface, 20000));
	told("steer", pointsman_steer(&manager, interface, 20000, 3));
	told("unsteer", pointsman_unsteer(&manager, interface, 9));
	told("no port", pointsman_delete_port(&manager, interface, 20000));
	told("no queue", pointsman_give_queue(&manager, interface, 3));
	told("heartbeat", pointsman_heartbeat(&manager));
	pointsman_close(&manager);
	return 0;
}
