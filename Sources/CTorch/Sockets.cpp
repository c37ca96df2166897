// Addresses and sockets for the processes of a job.
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

#include "Bridge.hpp"
#include "ctorch_distributed.h"

using namespace ctorch;

namespace {

/// A file descriptor that is closed at the end of its scope.
struct Socket {
    int descriptor;
    explicit Socket(int family, int type) : descriptor(socket(family, type, 0)) {}
    ~Socket() {
        if (descriptor >= 0) close(descriptor);
    }
};

std::runtime_error failure(const std::string &what) { return std::runtime_error(what + ": " + std::strerror(errno)); }

/// The address of the interface that leads to `target`: connecting a datagram socket sends nothing.
bool local_address(const addrinfo &target, char *address, size_t room) {
    const Socket local(target.ai_family, SOCK_DGRAM);
    sockaddr_storage name{};
    socklen_t length = sizeof name;
    return local.descriptor >= 0 && connect(local.descriptor, target.ai_addr, target.ai_addrlen) == 0 &&
           getsockname(local.descriptor, reinterpret_cast<sockaddr *>(&name), &length) == 0 &&
           getnameinfo(reinterpret_cast<sockaddr *>(&name), length, address, static_cast<socklen_t>(room), nullptr, 0,
                       NI_NUMERICHOST) == 0;
}

}  // namespace

extern "C" {

int ct_local_address(const char *host, char *address, size_t room) {
    return status_or_error([&] {
        addrinfo hints{}, *found = nullptr;
        hints.ai_family = AF_UNSPEC;
        hints.ai_socktype = SOCK_DGRAM;
        const int code = getaddrinfo(host, "9", &hints, &found);
        if (code != 0) throw std::runtime_error(std::string("the host '") + host + "' is unknown: " + gai_strerror(code));
        bool has_address = false;
        for (const addrinfo *one = found; one != nullptr && !has_address; one = one->ai_next) {
            has_address = local_address(*one, address, room);
        }
        freeaddrinfo(found);
        if (!has_address) throw std::runtime_error(std::string("no network leads to the host '") + host + "'");
    });
}

int ct_listen_locally(int *port) {
    int result = -1;
    status_or_error([&] {
        Socket listening(AF_INET, SOCK_STREAM);
        sockaddr_in name{};
        name.sin_family = AF_INET;
        name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof name;
        auto *address = reinterpret_cast<sockaddr *>(&name);
        if (listening.descriptor < 0 || bind(listening.descriptor, address, length) != 0 ||
            listen(listening.descriptor, 1024) != 0 || getsockname(listening.descriptor, address, &length) != 0) {
            throw failure("can't listen at the loopback interface");
        }
        *port = ntohs(name.sin_port);
        result = std::exchange(listening.descriptor, -1);
    });
    return result;
}
}
